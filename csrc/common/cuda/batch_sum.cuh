// Sums over the batch, in an order that does not depend on the device: partial sums of chunks, then their sum.
#pragma once

#include <algorithm>

#include "common/cuda/tile.cuh"

namespace cvf::cuda {

inline constexpr int kSumThreads = 256;
inline constexpr int64_t kSumRows = 512;  // of a chunk, at least
inline constexpr int64_t kMostSumChunks = 64;

inline int64_t sum_chunks(int64_t rows) { return std::clamp<int64_t>(blocks_of(rows, kSumRows), 1, kMostSumChunks); }

// What `sum_rows` needs of scratch, in elements.
inline int64_t sum_scratch(int64_t rows, int64_t columns) {
  const int64_t chunks = sum_chunks(rows);
  return chunks > 1 ? chunks * columns : 0;
}

// out[chunk, column] = sum of the chunk's rows of (rows, columns), added to what is there if `adds`.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sum_rows_kernel(const T* data, int64_t rows, int64_t columns, int64_t chunk_rows, T* out, bool adds) {
  T* const partial = shared_memory<T>();  // (warps, lanes)
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kTile + lane();
  const int64_t begin = blockIdx.y * chunk_rows, end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  T sum = 0;
  if (column < columns) {
    for (int64_t row = begin + warp(); row < end; row += warps()) sum += data[row * columns + column];
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (warp() != 0 || column >= columns) return;
  for (int w = 1; w < warps(); ++w) sum += partial[w * kTile + lane()];
  T& result = out[blockIdx.y * columns + column];
  result = adds ? result + sum : sum;
}

// out (columns,) = the sum of the rows of `data` (rows, columns), added to what is there if `adds`.
template <class T>
void sum_rows(const Place& place, const T* data, int64_t rows, int64_t columns, T* out, T* scratch, bool adds = false) {
  const int64_t chunks = sum_chunks(rows), grid = blocks_of(columns, kTile);
  if (columns == 0) return;
  const auto pass = [&](const T* from, int64_t count, int64_t parts, T* to, bool add) {
    const int warps_used = static_cast<int>(std::clamp<int64_t>(blocks_of(count, parts), 1, kSumThreads / kTile));
    launch(place, sum_rows_kernel<T>, grid_of(grid, parts), warps_used * kTile,
           sizeof(T) * static_cast<size_t>(warps_used * kTile), from, count, columns,
           std::max<int64_t>(blocks_of(count, parts), 1), to, add);
  };
  if (chunks == 1) {
    pass(data, rows, 1, out, adds);
  } else {
    pass(data, rows, chunks, scratch, false);
    pass(scratch, chunks, 1, out, adds);
  }
}

}  // namespace cvf::cuda
