// Which kernels a call launches.
#pragma once

#include "common/cuda/batch_product.cuh"
#include "ops/ancestral_sample/ancestral_sample_cuda.h"
#include "ops/ancestral_sample/mlp_kernel.cuh"
#include "ops/ancestral_sample/row_kernel.cuh"
#include "ops/ancestral_sample/shared_kernel.cuh"

namespace cvf::ancestral_sample::cuda {

inline constexpr int64_t kBusyBlocks = 2 * 132;  // two for each multiprocessor of an H100

// Warps of a block of the shared kernels: few, so that there are many blocks, until the device is busy.
inline int shared_warps(int64_t batch) {
  int warps = 1;
  while (warps < 8 && blocks_of(batch, 2 * warps * kColumns) >= kBusyBlocks) warps *= 2;
  return warps;
}

template <class T, bool kQuadratic, class Kernel, class... Arguments>
void launch_shared(const Place& place, const Equations<T>& equations, Kernel kernel, const Arguments&... arguments) {
  const int warps = shared_warps(equations.batch);
  const size_t elements = static_cast<size_t>((kQuadratic ? 2 : 1) * kTileElements + kTile * warps * kColumns);
  launch(place, kernel, grid_of(blocks_of(equations.batch, warps * kColumns)), warps * kTile, elements * sizeof(T),
         arguments...);
}

template <class T, bool kQuadratic>
void run_forward(const Forward<T>& args, const Place& place) {
  const Equations<T>& e = args.equations;
  if (e.shared_jac) {
    launch_shared<T, kQuadratic>(place, e, shared_forward<T, kQuadratic>, args);
  } else if (e.d <= kMostGrouped) {
    launch_groups<T>(place, e.batch, e.d, kQuadratic ? 2 : 1, small_row_forward<T, kQuadratic>, args);
  } else {
    const size_t elements = static_cast<size_t>((kQuadratic ? 2 : 1) * kTileElements + kTile);
    launch(place, row_forward<T, kQuadratic>, grid_of(e.batch), kRowThreads, elements * sizeof(T), args);
  }
}

template <class T, bool kQuadratic>
void run_backward(const Backward<T>& args, T* lambda, T* values, const Place& place) {
  const Equations<T>& e = args.equations;
  if (e.shared_jac) {
    launch_shared<T, kQuadratic>(place, e, shared_backward<T, kQuadratic>, args, lambda, values);
  } else if (e.d <= kMostGrouped) {
    launch_groups<T>(place, e.batch, e.d, kQuadratic ? 2 : 1, small_row_backward<T, kQuadratic>, args, lambda, values);
  } else {
    const size_t elements = static_cast<size_t>((kQuadratic ? 2 : 1) * (kTileElements + kRowThreads));
    launch(place, row_backward<T, kQuadratic>, grid_of(e.batch), kRowThreads, elements * sizeof(T), args, lambda,
           values);
  }
}

// The parts of the scratch of a backward pass.
template <class T>
struct BackwardScratch {
  explicit BackwardScratch(const Backward<T>& args) {
    const int64_t batch = args.equations.batch, d = args.equations.d;
    lambda = args.grad_noise != nullptr ? 0 : batch * d;
    values = args.grad_values != nullptr && args.shared_values ? batch * d : 0;
    sums = std::max(sum_scratch(batch, d), args.equations.shared_jac ? product_scratch(batch, d, false) : 0);
  }
  int64_t lambda, values, sums;  // sums: of one sum over the batch after the other
};

template <class T>
void forward(const Forward<T>& args, const Place& place) {
  if (args.equations.batch == 0 || args.equations.d == 0) return;
  const DeviceGuard guard(place);
  args.equations.quadratic ? run_forward<T, true>(args, place) : run_forward<T, false>(args, place);
}

template <class T>
int64_t backward_scratch(const Backward<T>& args) {
  const BackwardScratch<T> parts(args);
  return parts.lambda + parts.values + parts.sums;
}

template <class T>
void backward(const Backward<T>& args, T* scratch, const Place& place) {
  const Equations<T>& e = args.equations;
  if (e.d == 0) return;
  const DeviceGuard guard(place);
  const BackwardScratch<T> parts(args);
  T* const lambda = args.grad_noise != nullptr ? args.grad_noise : scratch;
  T* const values = parts.values > 0 ? scratch + parts.lambda : args.grad_values;
  T* const sums = scratch + parts.lambda + parts.values;
  if (e.batch > 0) {
    e.quadratic ? run_backward<T, true>(args, lambda, values, place)
                : run_backward<T, false>(args, lambda, values, place);
  }
  if (e.shared_jac) {
    if (args.grad_jac != nullptr) batch_product<T, false>(place, lambda, args.z, e.batch, e.d, args.grad_jac, sums);
    if (args.grad_quadratic != nullptr)
      batch_product<T, true>(place, lambda, args.z, e.batch, e.d, args.grad_quadratic, sums);
  }
  if (args.grad_offset != nullptr) sum_rows(place, lambda, e.batch, e.d, args.grad_offset, sums);
  if (args.grad_values != nullptr && args.shared_values) sum_rows(place, values, e.batch, e.d, args.grad_values, sums);
}

}  // namespace cvf::ancestral_sample::cuda

namespace cvf::ancestral_sample::mlp::cuda {

inline constexpr int64_t kBusyBlocks = 4 * 132;  // of the kernel that sums the gradients of the weights

// Samples of a chunk of the batch: at least 64, else so few that the device is busy with chunks and nodes.
inline int64_t weight_chunk(int64_t batch, int64_t d) {
  const int64_t chunks = std::clamp<int64_t>(blocks_of(kBusyBlocks, d), 1, std::max<int64_t>(batch / 64, 1));
  return blocks_of(blocks_of(batch, kTile), chunks) * kTile;
}

template <class T>
struct BackwardScratch {
  explicit BackwardScratch(const Backward<T>& args) {
    const Equations<T>& e = args.equations;
    const int64_t units = e.d * e.hidden;
    wants_v = args.grad_w_in != nullptr || args.grad_edges != nullptr;
    wants_weights = wants_v || args.grad_b_in != nullptr || args.grad_w_out != nullptr;
    chunks = e.batch == 0 || !wants_weights ? 0 : blocks_of(e.batch, weight_chunk(e.batch, e.d));
    nodes = blocks_of(e.batch, kTile) * kTile * e.d * 2;
    lambda = args.grad_noise != nullptr ? 0 : e.batch * e.d;
    values = args.grad_values != nullptr && args.shared_values ? e.batch * e.d : 0;
    v = chunks * units * e.d;
    b = chunks * units;
    w = chunks * units;
    sums = std::max(sum_scratch(e.batch, e.d), sum_scratch(chunks, units));
  }
  int64_t all() const { return nodes + lambda + values + v + b + w + sums; }

  bool wants_v, wants_weights;
  int64_t chunks;
  int64_t nodes, lambda, values, v, b, w, sums;  // elements
};

template <class T>
int64_t forward_scratch(const Forward<T>& args) {
  return blocks_of(args.equations.batch, kTile) * kTile * args.equations.d;
}

template <class T>
void forward(const Forward<T>& args, T* scratch, const Place& place) {
  const Equations<T>& e = args.equations;
  if (e.batch == 0 || e.d == 0) return;
  const DeviceGuard guard(place);
  const int threads = threads_of(e.hidden);
  launch(place, mlp_forward<T>, grid_of(blocks_of(e.batch, kTile)), threads,
         sizeof(T) * static_cast<size_t>(kTileElements + threads), args, scratch);
}

template <class T>
int64_t backward_scratch(const Backward<T>& args) {
  return BackwardScratch<T>(args).all();
}

template <class T>
void backward(const Backward<T>& args, T* scratch, const Place& place) {
  const Equations<T>& e = args.equations;
  if (e.d == 0) return;
  const DeviceGuard guard(place);
  const BackwardScratch<T> parts(args);
  T* const nodes = scratch;
  T* const lambda = args.grad_noise != nullptr ? args.grad_noise : nodes + parts.nodes;
  T* const values = parts.values > 0 ? nodes + parts.nodes + parts.lambda : args.grad_values;
  T* const v = nodes + parts.nodes + parts.lambda + parts.values;
  T* const b = v + parts.v;
  T* const w = b + parts.b;
  T* const sums = w + parts.w;
  const int threads = threads_of(e.hidden), units = threads / kTile * kUnits;
  if (e.batch > 0) {
    launch(place, mlp_adjoint<T>, grid_of(blocks_of(e.batch, kTile)), threads,
           sizeof(T) * static_cast<size_t>(kTileElements + units * kTile), args, lambda, values, nodes);
  }
  if (parts.chunks > 0) {
    launch(place, mlp_weights<T>, grid_of(e.d, parts.chunks), threads,
           sizeof(T) * static_cast<size_t>(2 * kTileElements + units * kPitch), args, lambda,
           weight_chunk(e.batch, e.d), v, b, w);
  }
  if (parts.wants_v) {
    launch(place, mlp_finish<T>, grid_of(e.d), 128, 0, e, v, parts.chunks, args.grad_w_in, args.grad_edges);
  }
  const int64_t d = e.d, all_units = e.d * e.hidden;
  if (args.grad_b_in != nullptr) sum_rows(place, b, parts.chunks, all_units, args.grad_b_in, sums);
  if (args.grad_w_out != nullptr) sum_rows(place, w, parts.chunks, all_units, args.grad_w_out, sums);
  if (args.grad_b_out != nullptr) sum_rows(place, lambda, e.batch, d, args.grad_b_out, sums);
  if (args.grad_values != nullptr && args.shared_values) sum_rows(place, values, e.batch, d, args.grad_values, sums);
}

}  // namespace cvf::ancestral_sample::mlp::cuda
