// A block takes samples, one after the other, with all their matrices.
#pragma once

#include <algorithm>

#include "common/cuda/batch_sum.cuh"
#include "ops/gaussian_kl/block_matrix.cuh"
#include "ops/gaussian_kl/gaussian_kl_cuda.h"

namespace cvf::gaussian_kl::cuda {

// d up to which matrices are in shared memory: in float64 what fits into the 99 KB of GeForce and L4, A10 and the like.
template <class T>
inline constexpr int64_t kMostShared = sizeof(T) == 8 ? 50 : 64;
inline constexpr int64_t kMostBlocks = 2 * 132;  // that have matrices in global memory, or sums of their own
inline constexpr int64_t kMatrices = 4, kVectors = 3;

// What blocks have in global memory, each of them or each sample.
template <class T>
struct Memory {
  T* matrices;  // (blocks, kMatrices, d, d), where d is large
  T* vectors;   // (blocks, kVectors, d), the same
  T* matrix_p;  // (blocks, d, d): gradients of a matrix_p that the batch shares, summed over the block's samples
  T* loc_p;     // (B, d): gradients of a loc_p that the batch shares
};

// The gradient of a matrix: its lower triangle and zeros, or a symmetric matrix.
template <class T>
struct Gradient {
  T* data;
  bool symmetric, adds;

  __device__ void write(int64_t d, int64_t i, int64_t j, T value) const {
    if (i >= d || j > i) return;
    put(i * d + j, value);
    if (j < i) put(j * d + i, symmetric ? value : T(0));
  }

 private:
  __device__ void put(int64_t place, T value) const { data[place] = adds ? data[place] + value : value; }
};

// The lower triangle of a matrix (d, d), with zeros above.
template <class T>
__device__ void fetch(const Matrix<T>& X, const T* from, int64_t d) {
  __syncthreads();
  for (int64_t i = warp(); i < d; i += warps()) {
    for (int64_t j = lane(); j < d; j += kTile) X(i, j) = j <= i ? from[i * d + j] : T(0);
  }
}

template <class T>
__device__ void fill_identity(const Matrix<T>& X, int64_t d) {
  __syncthreads();
  for (int64_t i = warp(); i < d; i += warps()) {
    for (int64_t j = lane(); j < d; j += kTile) X(i, j) = i == j;
  }
}

// The sum of a value of each thread, for all of them.
template <class T>
__device__ T block_sum(T* partial, T value) {
  value = warp_sum(value);
  __syncthreads();
  if (lane() == 0) partial[warp()] = value;
  __syncthreads();
  T sum = 0;
  for (int w = 0; w < warps(); ++w) sum += partial[w];
  return sum;
}

// target += factor X^T X.
template <class T>
__device__ void write_square(const Stage<T>& stage, const Matrix<T>& X, int64_t d, T factor,
                             const Gradient<T>& target) {
  for_lower_tiles<T>(d, [&](Columns<T>& sum, int64_t row, int64_t column) {
    add_square(stage, X, d, row, column, sum);
    for (int c = 0; c < kColumns; ++c) {
      target.write(d, row + warp() * kColumns + c, column + lane(), factor * sum.at[c]);
    }
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) gaussian_kl_kernel(Arguments<T> args, Memory<T> memory) {
  const int64_t d = args.d;
  const bool large = d > kMostShared<T>;
  T* const shared = shared_memory<T>();
  const Stage<T> stage{shared, shared + kTileElements};
  T* const matrices = large ? memory.matrices + blockIdx.x * kMatrices * d * d : shared + kStageElements;
  const int64_t pitch = large ? d : d | 1;
  T* const vectors = large ? memory.vectors + blockIdx.x * kVectors * d : matrices + kMatrices * d * pitch;
  const auto matrix = [&](int k) { return Matrix<T>{matrices + k * d * pitch, pitch, d}; };
  // L_p; L_q, later N; L_p^-T N; inverses.
  const Matrix<T> P = matrix(0), Q = matrix(1), S = matrix(2), R = matrix(3);
  const Matrix<T> u{vectors, 1, 1}, v{vectors + d, 1, 1};
  T* const inverse_q = vectors + 2 * d;  // 1 / L_q,ii
  const bool factor_q = args.grad_matrix_q != nullptr && !args.covariance_q;
  const bool covariance_q = args.grad_matrix_q != nullptr && args.covariance_q;
  const bool factor_p = args.grad_matrix_p != nullptr && !args.covariance_p;
  const bool covariance_p = args.grad_matrix_p != nullptr && args.covariance_p;
  for (int64_t sample = blockIdx.x; sample < args.batch; sample += gridDim.x) {
    const bool first = sample == static_cast<int64_t>(blockIdx.x);
    const T g = args.upstream ? *args.upstream[sample] : T(1);
    if (first || !args.shared_matrix_p) {
      fetch(P, args.matrix_p[sample], d);
      if (args.covariance_p) factorise(stage, P, d);
    }
    fetch(Q, args.matrix_q[sample], d);
    if (args.covariance_q) factorise(stage, Q, d);
    __syncthreads();
    T sum = 0;  // of log L_p,ii - log L_q,ii, and of the squares
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      sum += std::log(P(i, i)) - std::log(Q(i, i));
      inverse_q[i] = 1 / Q(i, i);
      u(i, 0) = args.loc_q[sample][i] - args.loc_p[sample][i];
    }
    if (covariance_q) {
      fill_identity(R, d);
      solve(stage, Q, R, d, true);
      write_square(stage, R, d, -g / 2, Gradient<T>{args.grad_matrix_q + sample * d * d, true, false});
    }
    solve(stage, P, Q, d, true);
    solve(stage, P, u, d, false);
    __syncthreads();
    for (int64_t i = warp(); i < d; i += warps()) {
      for (int64_t j = lane(); j <= i; j += kTile) sum += Q(i, j) * Q(i, j) / 2;
      if (lane() == 0) sum += (u(i, 0) * u(i, 0) - 1) / 2;
    }
    const T value = block_sum(stage.tile, sum);
    if (args.value != nullptr && threadIdx.x == 0) args.value[sample] = value;
    if (!args.wants_gradient()) continue;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) v(i, 0) = u(i, 0);
    solve_transposed(stage, P, v, d, false);
    __syncthreads();
    T* const loc_p = memory.loc_p != nullptr ? memory.loc_p : args.grad_loc_p;
    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
      if (args.grad_loc_q != nullptr) args.grad_loc_q[sample * d + i] = g * v(i, 0);
      if (loc_p != nullptr) loc_p[sample * d + i] = -g * v(i, 0);
    }
    if (factor_q || args.grad_matrix_p != nullptr) {
      for (int64_t i = warp(); i < d; i += warps()) {
        for (int64_t j = lane(); j < d; j += kTile) S(i, j) = Q(i, j);
      }
      solve_transposed(stage, P, S, d, !covariance_p);
    }
    if (covariance_q || (covariance_p && (first || !args.shared_matrix_p))) {
      fill_identity(R, d);
      solve(stage, P, R, d, true);
    }
    __syncthreads();
    if (covariance_q) write_square(stage, R, d, g / 2, Gradient<T>{args.grad_matrix_q + sample * d * d, true, true});
    if (factor_q) {
      const Gradient<T> target{args.grad_matrix_q + sample * d * d, false, false};
      for (int64_t i = warp(); i < d; i += warps()) {
        for (int64_t j = lane(); j <= i; j += kTile) {
          target.write(d, i, j, g * (S(i, j) - (i == j ? inverse_q[i] : T(0))));
        }
      }
    }
    if (args.grad_matrix_p == nullptr) continue;
    const bool apart = memory.matrix_p != nullptr;
    const Gradient<T> target{apart ? memory.matrix_p + blockIdx.x * d * d : args.grad_matrix_p + sample * d * d,
                             covariance_p, apart && !first};
    for_lower_tiles<T>(d, [&](Columns<T>& sums, int64_t row, int64_t column) {
      const int64_t j = column + lane();
      if (factor_p) {
        add_product(stage, S, Q, d, row, column, column + 1, sums);
      } else {
        Columns<T> squares{};
        add_product(stage, S, S, d, row, column, d, sums);
        add_square(stage, R, d, row, column, squares);
        for (int c = 0; c < kColumns; ++c) sums.at[c] -= squares.at[c];
      }
      for (int c = 0; c < kColumns; ++c) {
        const int64_t i = row + warp() * kColumns + c;
        if (i >= d || j > i) continue;
        if (factor_p) {
          target.write(d, i, j, g * ((i == j ? 1 / P(i, i) : T(0)) - sums.at[c] - v(i, 0) * u(j, 0)));
        } else {
          target.write(d, i, j, -g / 2 * (sums.at[c] + v(i, 0) * v(j, 0)));
        }
      }
    });
  }
}

// The grid, and the parts of the scratch.
template <class T>
struct Plan {
  explicit Plan(const Arguments<T>& args) {
    const int64_t d = args.d;
    const bool large = d > kMostShared<T>, sums_p = args.shared_matrix_p && args.grad_matrix_p != nullptr;
    blocks =
        large || sums_p || (args.shared_matrix_p && args.covariance_p) ? std::min(args.batch, kMostBlocks) : args.batch;
    matrices = large ? blocks * kMatrices * d * d : 0;
    vectors = large ? blocks * kVectors * d : 0;
    matrix_p = sums_p ? blocks * d * d : 0;
    loc_p = args.shared_loc_p && args.grad_loc_p != nullptr ? args.batch * d : 0;
    sums = std::max(matrix_p > 0 ? sum_scratch(blocks, d * d) : 0, loc_p > 0 ? sum_scratch(args.batch, d) : 0);
    shared = kStageElements + (large ? 0 : kMatrices * d * (d | 1) + kVectors * d);
  }
  int64_t all() const { return matrices + vectors + matrix_p + loc_p + sums; }

  int64_t blocks;
  int64_t matrices, vectors, matrix_p, loc_p, sums;  // elements of scratch
  int64_t shared;                                    // elements of a block's shared memory
};

template <class T>
int64_t scratch(const Arguments<T>& args) {
  return Plan<T>(args).all();
}

template <class T>
void run(const Arguments<T>& args, T* scratch, const Place& place) {
  const DeviceGuard guard(place);
  const Plan<T> plan(args);
  auto take = [next = scratch](int64_t elements) mutable {
    T* const found = elements > 0 ? next : nullptr;
    next += elements;
    return found;
  };
  Memory<T> memory;
  memory.matrices = take(plan.matrices);
  memory.vectors = take(plan.vectors);
  memory.matrix_p = take(plan.matrix_p);
  memory.loc_p = take(plan.loc_p);
  T* const sums = take(plan.sums);
  if (args.batch > 0) {
    launch(place, gaussian_kl_kernel<T>, grid_of(plan.blocks), kThreads, sizeof(T) * static_cast<size_t>(plan.shared),
           args, memory);
  }
  if (args.shared_matrix_p && args.grad_matrix_p != nullptr)
    sum_rows(place, memory.matrix_p, plan.blocks, args.d * args.d, args.grad_matrix_p, sums);
  if (args.shared_loc_p && args.grad_loc_p != nullptr)
    sum_rows(place, memory.loc_p, args.batch, args.d, args.grad_loc_p, sums);
}

}  // namespace cvf::gaussian_kl::cuda
