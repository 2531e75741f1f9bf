// One matrix for all samples: tiles of it are read by the block, a warp takes kColumns samples, lanes are nodes.
#pragma once

#include "common/cuda/batch_sum.cuh"
#include "ops/ancestral_sample/ancestral_sample.h"

namespace cvf::ancestral_sample::cuda {

using namespace cvf::cuda;

// sum += A x + Q x^2 of a tile.
template <bool kQuadratic, class T>
__device__ void multiply_squares(const T* tile, const T* squares, const T* staged, Columns<T>& sum) {
#pragma unroll 8
  for (int k = 0; k < kTile; ++k) {
    const T a = tile[lane() * kPitch + k], q = kQuadratic ? squares[lane() * kPitch + k] : T(0);
    const Columns<T> x = staged_columns(staged, warps() * kColumns, k);
    for (int c = 0; c < kColumns; ++c) {
      sum.at[c] += (kQuadratic ? a + q * x.at[c] : a) * x.at[c];
    }
  }
}

// Which samples a warp has. Those past the end are taken to be the last one, and not written.
struct Samples {
  int64_t first, batch;
  __device__ int64_t operator[](int c) const { return is_there(c) ? first + c : batch - 1; }
  __device__ bool is_there(int c) const { return first + c < batch; }
};

__device__ inline Samples samples_of_warp(int64_t batch) {
  return {(static_cast<int64_t>(blockIdx.x) * warps() + warp()) * kColumns, batch};
}

// The rows of a tile of `values`, (N, d), of the samples of the block, for all lanes: (row, sample).
template <class T>
__device__ void stage(T* staged, const T* values, int64_t d, int64_t row, const Samples& samples) {
  for (int c = 0; c < kColumns; ++c) {
    const int64_t j = row + lane();
    staged[(lane() * warps() + warp()) * kColumns + c] = j < d ? values[samples[c] * d + j] : T(0);
  }
}

template <class T, bool kQuadratic>
__global__ void shared_forward(Forward<T> args) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d;
  T* const tile = shared_memory<T>();
  T* const squares = tile + (kQuadratic ? kTileElements : 0);
  T* const staged = squares + kTileElements;
  const Samples samples = samples_of_warp(equations.batch);
  for (int64_t row = 0; row < d; row += kTile) {
    const int64_t i = row + lane();
    Columns<T> sum{};
    const auto load = [&](int64_t column) {
      load_tile(tile, equations.jac.data, d, row, column);
      if (kQuadratic) load_tile(squares, equations.quadratic.data, d, row, column);
    };
    for (int64_t column = 0; column < row; column += kTile) {
      __syncthreads();
      load(column);
      stage(staged, args.z, d, column, samples);
      __syncthreads();
      multiply_squares<kQuadratic>(tile, squares, staged, sum);
    }
    __syncthreads();
    load(row);
    __syncthreads();
    bool own[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      own[c] = i < d && !(equations.do_mask && equations.do_mask[samples[c]][i]);
      if (i >= d) continue;
      sum.at[c] = own[c] ? sum.at[c] + args.noise[samples[c]][i] + (args.offset != nullptr ? args.offset[i] : T(0))
                         : args.do_values[samples[c]][i];
    }
    const int rows = static_cast<int>(d - row < kTile ? d - row : kTile);
    for (int k = 0; k < rows; ++k) {
      const bool later = lane() > k;
      const T a = later ? tile[lane() * kPitch + k] : T(0);
      const T q = kQuadratic && later ? squares[lane() * kPitch + k] : T(0);
      const Columns<T> known = columns_of(sum, k);
      for (int c = 0; c < kColumns; ++c) {
        if (later && own[c]) sum.at[c] += (kQuadratic ? a + q * known.at[c] : a) * known.at[c];
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      if (i < d && samples.is_there(c)) args.z[samples[c] * d + i] = sum.at[c];
    }
  }
}

// lambda (N, d) and, if it is not null, `values` (N, d): the adjoints of the nodes that are replaced.
template <class T, bool kQuadratic>
__global__ void shared_backward(Backward<T> args, T* lambda, T* values) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d;
  T* const tile = shared_memory<T>();
  T* const squares = tile + (kQuadratic ? kTileElements : 0);
  T* const staged = squares + kTileElements;
  const Samples samples = samples_of_warp(equations.batch);
  for (int64_t row = (d - 1) / kTile * kTile; row >= 0; row -= kTile) {
    const int64_t i = row + lane();
    Columns<T> linear{}, quadratic{};
    const auto load = [&](int64_t child) {
      load_tile(tile, equations.jac.data, d, child, row);
      if (kQuadratic) load_tile(squares, equations.quadratic.data, d, child, row);
    };
    for (int64_t child = row + kTile; child < d; child += kTile) {
      __syncthreads();
      load(child);
      stage(staged, lambda, d, child, samples);
      __syncthreads();
      multiply<true>(tile, staged, warps() * kColumns, linear);
      if (kQuadratic) multiply<true>(squares, staged, warps() * kColumns, quadratic);
    }
    __syncthreads();
    load(row);
    __syncthreads();
    bool own[kColumns];
    Columns<T> twice{};  // 2 z, where it is needed
    for (int c = 0; c < kColumns; ++c) {
      own[c] = i < d && !(equations.do_mask && equations.do_mask[samples[c]][i]);
      if (i >= d) continue;
      linear.at[c] += args.upstream[samples[c]][i];
      if (kQuadratic) twice.at[c] = 2 * args.z[samples[c]][i];
    }
    const auto adjoint = [&](int c) {
      return kQuadratic ? linear.at[c] + twice.at[c] * quadratic.at[c] : linear.at[c];
    };
    const int rows = static_cast<int>(d - row < kTile ? d - row : kTile);
    for (int k = rows - 1; k > 0; --k) {
      const bool earlier = lane() < k;
      const T a = earlier ? tile[k * kPitch + lane()] : T(0);
      const T q = kQuadratic && earlier ? squares[k * kPitch + lane()] : T(0);
      Columns<T> known;
      for (int c = 0; c < kColumns; ++c) known.at[c] = own[c] ? adjoint(c) : T(0);
      known = columns_of(known, k);
      for (int c = 0; c < kColumns && earlier; ++c) {
        linear.at[c] += a * known.at[c];
        if (kQuadratic) quadratic.at[c] += q * known.at[c];
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      if (i >= d || !samples.is_there(c)) continue;
      lambda[samples[c] * d + i] = own[c] ? adjoint(c) : T(0);
      if (values != nullptr) values[samples[c] * d + i] = own[c] ? T(0) : adjoint(c);
    }
  }
}

}  // namespace cvf::ancestral_sample::cuda
