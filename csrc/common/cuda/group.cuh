// At most 32 nodes: a group of lanes for each sample, several samples in a warp.
#pragma once

#include "common/cuda/tile.cuh"

namespace cvf::cuda {

inline constexpr int kGroupThreads = 256;         // of a block, at most
inline constexpr int64_t kMostGrouped = kTile;    // nodes of a sample
inline constexpr size_t kMostShared = 48 * 1024;  // bytes of a block that need not be asked for

// Lanes of a sample: the next power of two.
inline int group_width(int64_t d) {
  int width = 1;
  while (width < d) width *= 2;
  return width;
}

// Elements that a group has in shared memory: its matrices (d, d) with rows of d | 1 numbers, and so many more that
// the groups of a warp begin `width` banks apart.
constexpr int group_elements(int matrices, int64_t d, int width) {
  const int elements = matrices * static_cast<int>(d * (d | 1));
  return elements + (width - elements % kTile + kTile) % kTile;
}

// A group of lanes, which has a sample. Those past the end have the last one, and do not write.
struct Group {
  int width, lane, place;  // place: of the group in its block
  int64_t sample;
  bool is_there;

  __device__ Group(int lanes, int64_t batch) : width(lanes) {
    lane = static_cast<int>(threadIdx.x) % width;
    place = static_cast<int>(threadIdx.x) / width;
    sample = static_cast<int64_t>(blockIdx.x) * (static_cast<int>(blockDim.x) / width) + place;
    is_there = sample < batch;
    if (!is_there) sample = batch - 1;
  }
};

// The rows of a matrix (d, d), below the diagonal or to it, into shared memory, with `pitch` numbers in a row. The
// lanes of the group have to wait for each other before and after.
template <class T>
__device__ void load_rows(T* rows, const T* matrix, int64_t d, int pitch, int lane, bool diagonal = false) {
  for (int i = 0; i < d; ++i) {
    if (lane < i || (diagonal && lane == i)) rows[i * pitch + lane] = matrix[i * d + lane];
  }
}

// A kernel whose groups have group_elements of `matrices` matrices (d, d) in shared memory. After `arguments`, it takes
// the width of a group.
template <class T, class... Parameters>
void launch_groups(const Place& place, int64_t batch, int64_t d, int matrices, void (*kernel)(Parameters...),
                   const auto&... arguments) {
  const int width = group_width(d);
  const size_t bytes = static_cast<size_t>(group_elements(matrices, d, width)) * sizeof(T);
  int threads = kGroupThreads;
  while (threads > kTile && static_cast<size_t>(threads / width) * bytes > kMostShared) threads /= 2;
  const int groups = threads / width;
  launch(place, kernel, grid_of(blocks_of(batch, groups)), threads, static_cast<size_t>(groups) * bytes, arguments...,
         width);
}

}  // namespace cvf::cuda
