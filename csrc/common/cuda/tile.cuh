// Triangular matrices in tiles of a warp's width. A lane stands for a row of a tile; a warp works on kColumns columns
// of a right-hand side at a time.
#pragma once

#include "common/cuda/launch.h"

namespace cvf::cuda {

inline constexpr int kTile = 32;
inline constexpr int kPitch = kTile + 1;  // of a tile in shared memory: neither rows nor columns fall into one bank
inline constexpr int kColumns = 4;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// A number of each column of a warp. In shared memory it is read at once.
template <class T>
struct alignas(16) Columns {
  T at[kColumns];
};

inline constexpr int kTileElements = (kTile * kPitch + 3) / 4 * 4;  // what follows in shared memory is aligned

__device__ inline int lane() { return static_cast<int>(threadIdx.x % kTile); }
__device__ inline int warp() { return static_cast<int>(threadIdx.x / kTile); }
__device__ inline int warps() { return static_cast<int>(blockDim.x / kTile); }

// What another lane has.
template <class T>
__device__ Columns<T> columns_of(const Columns<T>& mine, int source) {
#ifdef __CUDACC__
  Columns<T> found;
  for (int c = 0; c < kColumns; ++c) found.at[c] = __shfl_sync(kAllLanes, mine.at[c], source);
  return found;
#else
  return __shfl_sync(kAllLanes, mine, source);  // all at once: each takes a barrier of fibers
#endif
}

template <class T>
__device__ T warp_sum(T value) {
  for (int step = kTile / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Rows `row`..., columns `column`... of a matrix (d, d), in those places where column + (diagonal ? 0 : 1) <= row, and
// zeros elsewhere. By all threads of the block, which have to wait for each other before and after.
template <class T>
__device__ void load_tile(T* tile, const T* matrix, int64_t d, int64_t row, int64_t column, bool diagonal = false) {
  for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
    const int64_t i = row + k / kTile, j = column + k % kTile;
    const bool below = i < d && (diagonal ? j <= i : j < i);
    tile[k / kTile * kPitch + k % kTile] = below ? matrix[i * d + j] : T(0);
  }
}

// The columns of a warp among those that the block has staged: rows of `pitch` numbers, one for each row of a tile.
template <class T>
__device__ Columns<T> staged_columns(const T* staged, int pitch, int row) {
  return *reinterpret_cast<const Columns<T>*>(staged + row * pitch + warp() * kColumns);
}

// sum += tile x, or tile^T x, for what is staged.
template <bool kTransposed, class T>
__device__ void multiply(const T* tile, const T* staged, int pitch, Columns<T>& sum) {
#pragma unroll 8
  for (int k = 0; k < kTile; ++k) {
    const T a = kTransposed ? tile[k * kPitch + lane()] : tile[lane() * kPitch + k];
    const Columns<T> x = staged_columns(staged, pitch, k);
    for (int c = 0; c < kColumns; ++c) sum.at[c] += a * x.at[c];
  }
}

// x := (I - tile)^-1 x, or (I - tile^T)^-1 x, for a tile with `rows` rows that is zero on and above its diagonal.
template <bool kTransposed, class T>
__device__ void substitute(const T* tile, int rows, Columns<T>& x) {
  for (int step = 0; step < rows; ++step) {
    const int k = kTransposed ? rows - 1 - step : step;
    const bool later = kTransposed ? lane() < k : lane() > k;
    const T a = later ? (kTransposed ? tile[k * kPitch + lane()] : tile[lane() * kPitch + k]) : T(0);
    const Columns<T> known = columns_of(x, k);
    for (int c = 0; c < kColumns; ++c) {
      if (later) x.at[c] += a * known.at[c];
    }
  }
}

}  // namespace cvf::cuda
