// Sums over the batch of products of two vectors, below the diagonal: the gradient of a matrix that the batch shares.
#pragma once

#include "common/batched.h"
#include "common/cuda/batch_sum.cuh"

namespace cvf::cuda {

inline constexpr int kProductThreads = 256;
inline constexpr int64_t kProductSamples = 128;  // of a chunk, at least

// Chunks of the batch for the product of a batch with d columns: as many as keep the device busy.
inline int64_t product_chunks(int64_t batch, int64_t d) {
  const int64_t tiles = blocks_of(d, kTile) * (blocks_of(d, kTile) + 1) / 2;
  return std::clamp<int64_t>(blocks_of(batch, kProductSamples), 1, std::max<int64_t>(512 / tiles, 1));
}

// out (chunks, d, d) = sum over the samples of a chunk of lambda_i z_j, or lambda_i z_j^2, where j < i, else 0.
template <class T, bool kSquares>
__global__ void __launch_bounds__(kProductThreads)
    batch_product_kernel(const T* lambda, Batched<T> z, int64_t batch, int64_t d, int64_t chunk, T* out) {
  T* const left = shared_memory<T>();
  T* const right = left + kTileElements;
  const int64_t tiles = (d + kTile - 1) / kTile;
  const int64_t row = blockIdx.x / tiles * kTile, column = blockIdx.x % tiles * kTile;
  const int64_t begin = blockIdx.y * chunk, end = begin + chunk < batch ? begin + chunk : batch;
  Columns<T> sum{};  // of rows warp * kColumns + c, column lane
  if (column <= row) {
    for (int64_t n = begin; n < end; n += kTile) {
      __syncthreads();
      for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
        const int64_t sample = n + k / kTile, i = row + k % kTile, j = column + k % kTile;
        const int place = k / kTile * kTile + k % kTile;
        left[place] = sample < end && i < d ? lambda[sample * d + i] : T(0);
        const T x = sample < end && j < d ? z[sample][j] : T(0);
        right[place] = kSquares ? x * x : x;
      }
      __syncthreads();
#pragma unroll 8
      for (int k = 0; k < kTile; ++k) {
        const Columns<T> a = staged_columns(left, kTile, k);
        const T x = right[k * kTile + lane()];
        for (int c = 0; c < kColumns; ++c) sum.at[c] += a.at[c] * x;
      }
    }
  }
  const int64_t j = column + lane();
  for (int c = 0; c < kColumns; ++c) {
    const int64_t i = row + warp() * kColumns + c;
    if (i < d && j < d) out[(blockIdx.y * d + i) * d + j] = j < i ? sum.at[c] : T(0);
  }
}

// What `batch_product` needs of scratch, in elements.
inline int64_t product_scratch(int64_t batch, int64_t d, bool adds) {
  const int64_t chunks = product_chunks(batch, d);
  return chunks > 1 || adds ? chunks * d * d : 0;
}

// out (d, d) = sum over the batch of lambda z^T, or lambda (z^2)^T, below the diagonal, zeros elsewhere; added to what
// is there if `adds`.
template <class T, bool kSquares>
void batch_product(const Place& place, const T* lambda, const Batched<T>& z, int64_t batch, int64_t d, T* out,
                   T* scratch, bool adds = false) {
  const int64_t chunks = product_chunks(batch, d), tiles = blocks_of(d, kTile);
  const bool direct = chunks == 1 && !adds;
  launch(place, batch_product_kernel<T, kSquares>, grid_of(tiles * tiles, chunks), kProductThreads,
         2 * sizeof(T) * kTileElements, lambda, z, batch, d, std::max<int64_t>(blocks_of(batch, chunks), 1),
         direct ? out : scratch);
  if (!direct) sum_rows<T>(place, scratch, chunks, d * d, out, nullptr, adds);
}

}  // namespace cvf::cuda
