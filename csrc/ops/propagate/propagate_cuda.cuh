// Which kernels a call launches. Where the batch shares jac, the means are samples of a structural equation model whose
// noise is the offset, and the gradient of jac is a product over the batch, as in ancestral_sample. So is the gradient
// of the offset where no other is wanted.
#pragma once

#include "common/cuda/batch_product.cuh"
#include "ops/ancestral_sample/ancestral_sample_cuda.h"
#include "ops/propagate/panel_kernel.cuh"
#include "ops/propagate/propagate_cuda.h"
#include "ops/propagate/small_kernel.cuh"

namespace cvf::propagate::cuda {

template <class T>
ancestral_sample::Equations<T> equations_of(int64_t batch, int64_t d, const Batched<T>& jac, bool shared_jac) {
  return {.batch = batch, .d = d, .jac = jac, .shared_jac = shared_jac};
}

template <class T>
void forward(const Forward<T>& args, const Place& place) {
  if (args.batch == 0 && !args.shared_jac) return;
  const DeviceGuard guard(place);
  const bool together = !args.shared_jac;  // loc and scale_tril
  const int64_t matrices = together ? args.batch : 1, panels = blocks_of(args.d, kTile);
  if (together && args.d <= kMostGrouped) {
    launch_groups<T>(place, matrices, args.d, 1, small_forward<T>, args);
    return;
  }
  launch(place, panel_forward<T>, grid_of(matrices, panels), kPanelThreads, kPanelElements * sizeof(T), args, together);
  if (together || args.batch == 0) return;
  ancestral_sample::Forward<T> means;
  means.equations = equations_of(args.batch, args.d, args.jac, true);
  means.noise = args.offset;
  means.z = args.loc;
  ancestral_sample::cuda::forward(means, place);
}

// The parts of the scratch of a backward pass.
template <class T>
struct BackwardScratch {
  explicit BackwardScratch(const Backward<T>& args) {
    const int64_t matrices = args.shared_jac ? 1 : args.batch, d = args.d;
    wants_matrices = args.grad_jac != nullptr || args.grad_log_sigma != nullptr;
    const bool in_place = args.grad_jac != nullptr || (!args.shared_jac && d <= kMostGrouped);
    solution = in_place || !wants_matrices ? 0 : matrices * d * d;
    adjoint = args.grad_offset != nullptr && !args.shared_offset ? 0 : args.batch * d;
    log_sigma = args.grad_log_sigma != nullptr && !args.shared_jac ? matrices * d : 0;
    sums = sum_scratch(args.batch, d);
    if (args.shared_jac) sums = std::max(sums, product_scratch(args.batch, d, true));
  }
  int64_t all() const { return solution + adjoint + log_sigma + sums; }

  bool wants_matrices;                         // or only what comes from the means
  int64_t solution, adjoint, log_sigma, sums;  // elements
};

template <class T>
int64_t backward_scratch(const Backward<T>& args) {
  return BackwardScratch<T>(args).all();
}

template <class T>
void backward(const Backward<T>& args, T* scratch, const Place& place) {
  const DeviceGuard guard(place);
  const BackwardScratch<T> parts(args);
  const bool together = !args.shared_jac;
  const int64_t d = args.d, matrices = together ? args.batch : 1, panels = blocks_of(d, kTile);
  T* const solution = args.grad_jac != nullptr ? args.grad_jac : scratch;
  T* const adjoint = parts.adjoint == 0 ? args.grad_offset : scratch + parts.solution;
  T* const log_sigma = parts.log_sigma > 0 ? scratch + parts.solution + parts.adjoint : args.grad_log_sigma;
  T* const sums = scratch + parts.solution + parts.adjoint + parts.log_sigma;
  const bool apart = !together || !parts.wants_matrices;  // W^-T upstream_loc is found by a kernel of its own
  if (parts.wants_matrices && together && matrices > 0 && d <= kMostGrouped) {
    launch_groups<T>(place, matrices, d, 2, small_backward<T>, args, adjoint, log_sigma);
  } else if (parts.wants_matrices && matrices > 0) {
    launch(place, panel_adjoint<T>, grid_of(matrices, panels), kPanelThreads, kPanelElements * sizeof(T), args,
           solution, together ? adjoint : nullptr, log_sigma);
    if (args.grad_jac != nullptr) {
      launch(place, panel_product<T>, grid_of(matrices, panels), kPanelThreads, kPanelElements * sizeof(T), args,
             static_cast<const T*>(together ? adjoint : nullptr));
    }
  }
  if (apart && args.batch > 0) {
    ancestral_sample::Backward<T> means;
    means.equations = equations_of(args.batch, d, args.jac, args.shared_jac);
    means.z = args.loc;
    means.upstream = args.upstream_loc;
    means.grad_noise = adjoint;
    ancestral_sample::cuda::backward(means, static_cast<T*>(nullptr), place);
    if (args.grad_jac != nullptr) {
      batch_product<T, false>(place, adjoint, args.loc, args.batch, d, args.grad_jac, sums, true);
    }
  }
  if (args.grad_offset != nullptr && args.shared_offset)
    sum_rows(place, adjoint, args.batch, d, args.grad_offset, sums);
  if (args.grad_log_sigma != nullptr && together) sum_rows(place, log_sigma, args.batch, d, args.grad_log_sigma, sums);
}

}  // namespace cvf::propagate::cuda
