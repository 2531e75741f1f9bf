// A matrix for each sample: a group of lanes, or a block, for each. Each number is read once.
#pragma once

#include "common/cuda/group.cuh"
#include "ops/ancestral_sample/ancestral_sample.h"

namespace cvf::ancestral_sample::cuda {

using namespace cvf::cuda;

inline constexpr int kRowThreads = 256;

template <class T>
struct SampleMatrices {
  const T *jac, *quadratic;
};

// The matrices of a group's sample, loaded into shared memory in rows of `pitch`.
template <class T, bool kQuadratic>
__device__ SampleMatrices<T> matrices_of(const Equations<T>& equations, const Group& group, int pitch) {
  const int64_t d = equations.d;
  T* const jac = shared_memory<T>() + group.place * group_elements(kQuadratic ? 2 : 1, d, group.width);
  T* const quadratic = jac + d * pitch;
  load_rows(jac, equations.jac[group.sample], d, pitch, group.lane);
  if (kQuadratic) load_rows(quadratic, equations.quadratic[group.sample], d, pitch, group.lane);
  __syncwarp();
  return {jac, quadratic};
}

template <class T, bool kQuadratic>
__global__ void __launch_bounds__(kGroupThreads) small_row_forward(Forward<T> args, int width) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d;
  const int pitch = static_cast<int>(d) | 1;
  const Group group(width, equations.batch);
  const auto [jac, quadratic] = matrices_of<T, kQuadratic>(equations, group, pitch);
  const int i = group.lane;
  bool own = false;
  T z = 0;
  if (i < d) {
    own = !(equations.do_mask && equations.do_mask[group.sample][i]);
    z = own ? args.noise[group.sample][i] + args.offset[i] : args.do_values[group.sample][i];
  }
  for (int k = 0; k < d; ++k) {
    const T known = __shfl_sync(kAllLanes, z, k, width);
    if (!own || i <= k) continue;
    const T a = jac[i * pitch + k];
    z += (kQuadratic ? a + quadratic[i * pitch + k] * known : a) * known;
  }
  if (i < d && group.is_there) args.z[group.sample * d + i] = z;
}

// As shared_backward, with the gradients of the matrices.
template <class T, bool kQuadratic>
__global__ void __launch_bounds__(kGroupThreads) small_row_backward(Backward<T> args, T* lambda, T* values, int width) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d;
  const int pitch = static_cast<int>(d) | 1;
  const Group group(width, equations.batch);
  const auto [jac, quadratic] = matrices_of<T, kQuadratic>(equations, group, pitch);
  const int i = group.lane;
  bool own = false;
  T z = 0, linear = 0, curved = 0;
  if (i < d) {
    own = !(equations.do_mask && equations.do_mask[group.sample][i]);
    z = args.z[group.sample][i];
    linear = args.upstream[group.sample][i];
  }
  const auto adjoint = [&] { return kQuadratic ? linear + 2 * z * curved : linear; };
  for (int k = static_cast<int>(d) - 1; k > 0; --k) {
    const T known = __shfl_sync(kAllLanes, own ? adjoint() : T(0), k, width);
    if (i >= k) continue;
    linear += jac[k * pitch + i] * known;
    if (kQuadratic) curved += quadratic[k * pitch + i] * known;
  }
  const T mine = own ? adjoint() : T(0);
  if (i < d && group.is_there) {
    lambda[group.sample * d + i] = mine;
    if (values != nullptr) values[group.sample * d + i] = own ? T(0) : adjoint();
  }
  if (args.grad_jac == nullptr && args.grad_quadratic == nullptr) return;
  for (int row = 0; row < d; ++row) {
    const T factor = __shfl_sync(kAllLanes, mine, row, width);
    if (i >= d || !group.is_there) continue;
    const int64_t place = (group.sample * d + row) * d + i;
    const T product = i < row ? factor * z : T(0);
    if (args.grad_jac != nullptr) args.grad_jac[place] = product;
    if (kQuadratic && args.grad_quadratic != nullptr) args.grad_quadratic[place] = i < row ? product * z : T(0);
  }
}

template <class T, bool kQuadratic>
__global__ void __launch_bounds__(kRowThreads) row_forward(Forward<T> args) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d, sample = blockIdx.x;
  const T* const jac = equations.jac[sample];
  const T* const quadratic = kQuadratic ? equations.quadratic[sample] : nullptr;
  T* const tile = shared_memory<T>();
  T* const squares = tile + (kQuadratic ? kTileElements : 0);
  T* const sums = squares + kTileElements;
  T* const z = args.z + sample * d;
  for (int64_t row = 0; row < d; row += kTile) {
    // A warp takes the rows warp(), warp() + warps(), ... of the tile, lanes go along them.
    for (int r = warp(); r < kTile; r += warps()) {
      const int64_t i = row + r;
      T sum = 0;
      if (i < d) {
#pragma unroll 4
        for (int64_t j = lane(); j < row; j += kTile) {
          const T x = z[j], a = jac[i * d + j];
          sum += (kQuadratic ? a + quadratic[i * d + j] * x : a) * x;
        }
      }
      sum = warp_sum(sum);
      if (lane() == 0) sums[r] = sum;
    }
    load_tile(tile, jac, d, row, row);
    if (kQuadratic) load_tile(squares, quadratic, d, row, row);
    __syncthreads();
    if (warp() == 0) {
      const int64_t i = row + lane();
      bool own = false;
      T x = 0;
      if (i < d) {
        own = !(equations.do_mask && equations.do_mask[sample][i]);
        x = own ? sums[lane()] + args.noise[sample][i] + args.offset[i] : args.do_values[sample][i];
      }
      for (int k = 0; k < kTile - 1; ++k) {
        const T known = __shfl_sync(kAllLanes, x, k);
        if (!own || lane() <= k) continue;
        const T a = tile[lane() * kPitch + k];
        x += (kQuadratic ? a + squares[lane() * kPitch + k] * known : a) * known;
      }
      if (i < d) z[i] = x;
    }
    __syncthreads();
  }
}

template <class T, bool kQuadratic>
__global__ void __launch_bounds__(kRowThreads) row_backward(Backward<T> args, T* lambdas, T* values) {
  const Equations<T>& equations = args.equations;
  const int64_t d = equations.d, sample = blockIdx.x;
  const T* const jac = equations.jac[sample];
  const T* const quadratic = kQuadratic ? equations.quadratic[sample] : nullptr;
  const T* const z = args.z[sample];
  T* const tile = shared_memory<T>();
  T* const squares = tile + (kQuadratic ? kTileElements : 0);
  T* const sums = squares + kTileElements;  // (warps, lanes)
  T* const curved_sums = sums + (kQuadratic ? kRowThreads : 0);
  T* const lambda = lambdas + sample * d;
  for (int64_t row = (d - 1) / kTile * kTile; row >= 0; row -= kTile) {
    const int64_t i = row + lane();
    T linear = 0, curved = 0;
    if (i < d) {
#pragma unroll 4
      for (int64_t k = row + kTile + warp(); k < d; k += warps()) {
        linear += jac[k * d + i] * lambda[k];
        if (kQuadratic) curved += quadratic[k * d + i] * lambda[k];
      }
    }
    sums[threadIdx.x] = linear;
    if (kQuadratic) curved_sums[threadIdx.x] = curved;
    load_tile(tile, jac, d, row, row);
    if (kQuadratic) load_tile(squares, quadratic, d, row, row);
    __syncthreads();
    if (warp() == 0) {
      for (int w = 1; w < warps(); ++w) {
        linear += sums[w * kTile + lane()];
        if (kQuadratic) curved += curved_sums[w * kTile + lane()];
      }
      bool own = false;
      T twice = 0;
      if (i < d) {
        own = !(equations.do_mask && equations.do_mask[sample][i]);
        linear += args.upstream[sample][i];
        if (kQuadratic) twice = 2 * z[i];
      }
      const auto adjoint = [&] { return kQuadratic ? linear + twice * curved : linear; };
      for (int k = kTile - 1; k > 0; --k) {
        const T known = __shfl_sync(kAllLanes, own ? adjoint() : T(0), k);
        if (lane() >= k) continue;
        linear += tile[k * kPitch + lane()] * known;
        if (kQuadratic) curved += squares[k * kPitch + lane()] * known;
      }
      if (i < d) {
        lambda[i] = own ? adjoint() : T(0);
        if (values != nullptr) values[sample * d + i] = own ? T(0) : adjoint();
      }
    }
    __syncthreads();
    if (args.grad_jac == nullptr && args.grad_quadratic == nullptr) continue;
    for (int r = warp(); r < kTile && row + r < d; r += warps()) {
      const T factor = lambda[row + r];
      for (int64_t j = lane(); j < d; j += kTile) {
        const int64_t place = (sample * d + row + r) * d + j;
        const bool below = j < row + r;
        const T x = below ? z[j] : T(0), product = below ? factor * x : T(0);
        if (args.grad_jac != nullptr) args.grad_jac[place] = product;
        if (kQuadratic && args.grad_quadratic != nullptr) args.grad_quadratic[place] = below ? product * x : T(0);
      }
    }
  }
}

}  // namespace cvf::ancestral_sample::cuda
