// Networks as mechanisms: lanes are samples, a warp takes kUnits hidden units of a node, and the weights of a node pass
// through shared memory in tiles of 32 inputs and 32 units.
//
// What the recurrences need of each other's nodes stands in scratch, (block, node, lane), so that each access of a warp
// is one line and a block reads what it wrote.
#pragma once

#include "common/cuda/activation.cuh"
#include "common/cuda/batch_sum.cuh"
#include "ops/ancestral_sample/mlp.h"

namespace cvf::ancestral_sample::mlp::cuda {

using namespace cvf::cuda;

inline constexpr int kUnits = kColumns;  // of a warp
inline constexpr int kMostThreads = kTile / kUnits * kTile;

// One warp for every kUnits units, as far as there are units.
inline int threads_of(int64_t hidden) {
  return static_cast<int>(blocks_of(std::clamp<int64_t>(hidden, 1, kTile), kUnits)) * kTile;
}

// weights[j, u] = U m of a node, inputs `input`... and units `unit`..., zeros where there are none.
template <class T>
__device__ void load_weights(T* weights, const Equations<T>& e, int64_t node, int64_t unit, int64_t input) {
  for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
    const int u = k / kTile, j = k % kTile;
    const bool is_there = unit + u < e.hidden && input + j < node;
    weights[j * kPitch + u] =
        is_there ? e.w_in[(node * e.hidden + unit + u) * e.d + input + j] * e.edges[node * e.d + input + j] : T(0);
  }
}

// What goes into the units of a warp: their biases, zeros where there are no units.
template <class T>
__device__ Columns<T> biases(const Equations<T>& e, int64_t node, int64_t unit) {
  Columns<T> pre{};
  for (int c = 0; c < kUnits; ++c) {
    const int64_t k = unit + warp() * kUnits + c;
    if (k < e.hidden) pre.at[c] = e.b_in[node * e.hidden + k];
  }
  return pre;
}

// pre += the weights of up to 32 inputs times what `input(j)` gives for the lane's sample.
template <class T, class Input>
__device__ void add_inputs(const T* weights, int64_t inputs, Columns<T>& pre, Input input) {
  const int count = static_cast<int>(inputs < kTile ? inputs : kTile);
  for (int j = 0; j < count; ++j) {
    const T x = input(j);
    for (int c = 0; c < kUnits; ++c) pre.at[c] += weights[j * kPitch + warp() * kUnits + c] * x;
  }
}

template <class T>
__device__ Columns<T> pre_activations(T* weights, const Equations<T>& e, int64_t node, int64_t unit, const T* z) {
  Columns<T> pre = biases(e, node, unit);
  for (int64_t input = 0; input < node; input += kTile) {
    __syncthreads();
    load_weights(weights, e, node, unit, input);
    __syncthreads();
    add_inputs(weights, node - input, pre, [&](int j) { return z[(input + j) * kTile + lane()]; });
  }
  return pre;
}

template <class T>
__global__ void __launch_bounds__(kMostThreads) mlp_forward(Forward<T> args, T* scratch) {
  const Equations<T>& e = args.equations;
  T* const weights = shared_memory<T>();
  T* const sums = weights + kTileElements;  // (warps, lanes)
  T* const z = scratch + blockIdx.x * e.d * kTile;
  const int64_t own_sample = static_cast<int64_t>(blockIdx.x) * kTile + lane();
  const bool is_there = own_sample < e.batch;
  const int64_t sample = is_there ? own_sample : e.batch - 1;
  for (int64_t i = 0; i < e.d; ++i) {
    T sum = 0;
    for (int64_t unit = 0; unit < e.hidden; unit += kTile) {
      const Columns<T> pre = pre_activations(weights, e, i, unit, z);
      for (int c = 0; c < kUnits; ++c) {
        const int64_t k = unit + warp() * kUnits + c;
        if (k < e.hidden) sum += e.w_out[i * e.hidden + k] * activate(e.activation, pre.at[c]).value;
      }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp() == 0) {
      for (int w = 1; w < warps(); ++w) sum += sums[w * kTile + lane()];
      const bool own = !(e.do_mask && e.do_mask[sample][i]);
      const T x = own ? sum + e.b_out[i] + args.noise[sample][i] : args.do_values[sample][i];
      z[i * kTile + lane()] = x;
      if (is_there) args.z[sample * e.d + i] = x;
    }
    __syncthreads();
  }
}

// lambda (N, d) and, if it is not null, `values` (N, d): the adjoints of the nodes that are replaced. Scratch is that
// of z and of the adjoints.
template <class T>
__global__ void __launch_bounds__(kMostThreads) mlp_adjoint(Backward<T> args, T* lambda, T* values, T* scratch) {
  const Equations<T>& e = args.equations;
  T* const weights = shared_memory<T>();
  T* const deltas = weights + kTileElements;  // (units, lanes)
  T* const z = scratch + blockIdx.x * 2 * e.d * kTile;
  T* const adjoints = z + e.d * kTile;
  const int64_t own_sample = static_cast<int64_t>(blockIdx.x) * kTile + lane();
  const bool is_there = own_sample < e.batch;
  const int64_t sample = is_there ? own_sample : e.batch - 1;
  for (int64_t j = warp(); j < e.d; j += warps()) {
    z[j * kTile + lane()] = args.z[sample][j];
    adjoints[j * kTile + lane()] = args.upstream[sample][j];
  }
  __syncthreads();
  for (int64_t i = e.d - 1; i >= 0; --i) {
    const bool own = !(e.do_mask && e.do_mask[sample][i]);
    const T adjoint = adjoints[i * kTile + lane()];
    if (warp() == 0 && is_there) {
      lambda[sample * e.d + i] = own ? adjoint : T(0);
      if (values != nullptr) values[sample * e.d + i] = own ? T(0) : adjoint;
    }
    for (int64_t unit = 0; unit < e.hidden && i > 0; unit += kTile) {
      const Columns<T> pre = pre_activations(weights, e, i, unit, z);
      for (int c = 0; c < kUnits; ++c) {
        const int u = warp() * kUnits + c;
        const bool counts = own && unit + u < e.hidden;
        deltas[u * kTile + lane()] =
            counts ? adjoint * e.w_out[i * e.hidden + unit + u] * activate(e.activation, pre.at[c]).slope : T(0);
      }
      const int units = warps() * kUnits;
      for (int64_t input = 0; input < i; input += kTile) {
        __syncthreads();
        load_weights(weights, e, i, unit, input);
        __syncthreads();
        for (int j = warp(); j < kTile && input + j < i; j += warps()) {
          T sum = 0;
#pragma unroll 4
          for (int u = 0; u < units; ++u) sum += weights[j * kPitch + u] * deltas[u * kTile + lane()];
          adjoints[(input + j) * kTile + lane()] += sum;
        }
      }
      __syncthreads();
    }
  }
}

// Partial sums over the samples of a chunk: v (chunks, d, h, d) of delta_k z_j, which is not written where j is no
// input; b (chunks, d, h) of delta_k, w (chunks, d, h) of lambda phi. A block has a node and a chunk.
template <class T>
__global__ void __launch_bounds__(kMostThreads)
    mlp_weights(Backward<T> args, const T* lambda, int64_t chunk, T* v, T* b, T* w) {
  const Equations<T>& e = args.equations;
  T* const weights = shared_memory<T>();
  T* const inputs = weights + kTileElements;  // (samples, nodes)
  T* const deltas = inputs + kTileElements;   // (units, samples)
  const int64_t i = blockIdx.x, begin = blockIdx.y * chunk;
  const int64_t end = begin + chunk < e.batch ? begin + chunk : e.batch;
  const int64_t first = (blockIdx.y * e.d + i) * e.hidden;  // unit of the partial sums
  const auto load_inputs = [&](int64_t n, int64_t input) {
    for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
      const int64_t sample = n + k / kTile, j = input + k % kTile;
      inputs[k / kTile * kPitch + k % kTile] = sample < end && j < i ? args.z[sample][j] : T(0);
    }
  };
  for (int64_t unit = 0; unit < e.hidden; unit += kTile) {
    Columns<T> of_b{}, of_w{};
    for (int64_t n = begin; n < end; n += kTile) {
      Columns<T> pre = biases(e, i, unit);
      for (int64_t input = 0; input < i; input += kTile) {
        __syncthreads();
        load_weights(weights, e, i, unit, input);
        load_inputs(n, input);
        __syncthreads();
        add_inputs(weights, i - input, pre, [&](int j) { return inputs[lane() * kPitch + j]; });
      }
      const int64_t sample = n + lane();
      const bool own = sample < end && !(e.do_mask && e.do_mask[sample][i]);
      const T factor = own ? lambda[sample * e.d + i] : T(0);
      __syncthreads();
      for (int c = 0; c < kUnits; ++c) {
        const int u = warp() * kUnits + c;
        T delta = 0;
        if (own && unit + u < e.hidden) {
          const Activated<T> phi = activate(e.activation, pre.at[c]);
          delta = factor * e.w_out[i * e.hidden + unit + u] * phi.slope;
          of_b.at[c] += delta;
          of_w.at[c] += factor * phi.value;
        }
        deltas[u * kPitch + lane()] = delta;
      }
      for (int64_t input = 0; input < i; input += kTile) {
        __syncthreads();
        load_inputs(n, input);
        __syncthreads();
        Columns<T> sum{};
#pragma unroll 4
        for (int k = 0; k < kTile; ++k) {
          const T x = inputs[k * kPitch + lane()];
          for (int c = 0; c < kUnits; ++c) sum.at[c] += deltas[(warp() * kUnits + c) * kPitch + k] * x;
        }
        const int64_t j = input + lane();
        for (int c = 0; c < kUnits; ++c) {
          const int64_t k = unit + warp() * kUnits + c;
          if (j >= i || k >= e.hidden) continue;
          T& total = v[(first + k) * e.d + j];
          total = n == begin ? sum.at[c] : total + sum.at[c];
        }
      }
    }
    for (int c = 0; c < kUnits; ++c) {
      const int64_t k = unit + warp() * kUnits + c;
      const T sum_b = warp_sum(of_b.at[c]), sum_w = warp_sum(of_w.at[c]);
      if (lane() != 0 || k >= e.hidden) continue;
      b[first + k] = sum_b;
      w[first + k] = sum_w;
    }
  }
}

// grad_w_in = m V and grad_edges = sum_k U V, from the partial sums v (chunks, d, h, d); zeros where j is no input.
template <class T>
__global__ void mlp_finish(Equations<T> e, const T* v, int64_t chunks, T* grad_w_in, T* grad_edges) {
  const int64_t i = blockIdx.x;
  for (int64_t j = threadIdx.x; j < e.d; j += blockDim.x) {
    const bool is_input = j < i;
    T edge = 0;
    for (int64_t k = 0; k < e.hidden; ++k) {
      const int64_t place = (i * e.hidden + k) * e.d + j;
      T sum = 0;
      for (int64_t c = 0; c < chunks && is_input; ++c) sum += v[c * e.d * e.hidden * e.d + place];
      if (is_input) edge += e.w_in[place] * sum;
      if (grad_w_in != nullptr) grad_w_in[place] = is_input ? e.edges[i * e.d + j] * sum : T(0);
    }
    if (grad_edges != nullptr) grad_edges[i * e.d + j] = edge;
  }
}

}  // namespace cvf::ancestral_sample::mlp::cuda
