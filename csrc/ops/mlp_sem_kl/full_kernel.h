// mlp_sem_kl for a full posterior: the Jacobians of a tile of samples, packed, then the kernels of sem_kl.
//
// With v = loc - z for the means, and f(z) - z for the offset, its residual is (I - J) v - f + z = loc - f - J v.
#pragma once

#include "ops/mlp_sem_kl/node_kernel.h"
#include "ops/sem_kl/kernels.h"

namespace cvf::mlp_sem_kl::CVF_ISA {

template <class T>
class FullKernel {
  static constexpr int64_t kWidth = kLanes<T>;
  static constexpr int64_t kBytes = 256 << 10;  // of Jacobians and their gradients

  // Elements of a packed matrix.
  static int64_t size(int64_t d) { return d * (d + 1) / 2; }

 public:
  static int64_t samples(int64_t d) {
    const int64_t fitting = kBytes / (2 * size(d) * static_cast<int64_t>(sizeof(T)));
    return std::clamp<int64_t>(fitting, 1, NodeKernel<T>::kSamples);
  }

  FullKernel(const Arguments<T>& args, const NodeWeights<T>& weights)
      : args_(args),
        weights_(weights),
        d_(args.d),
        row_(round_up(args.d, kWidth)),
        network_(args.activation, args.hidden, row_),
        pivot_(samples(d_) * row_),
        step_(samples(d_) * d_),
        offset_(samples(d_) * d_),
        jac_(samples(d_) * size(d_)),
        of_value_(NodeKernel<T>::kSamples),
        log_sigma_(d_),
        grad_jac_(args.wants_gradient() ? samples(d_) * size(d_) : 0),
        grad_offset_(args.wants_gradient() ? samples(d_) * d_ : 0),
        grad_step_(args.wants_gradient() ? samples(d_) * d_ : 0),
        grad_pivot_(args.wants_gradient() ? samples(d_) * row_ : 0) {}

  // Samples [first, first + count) of the batch, at most samples(d). `gradients` is null if none is wanted.
  void run(int64_t first, int64_t count, NodeGradients<T>* gradients, int thread) {
    load(first, count);
    for (int64_t i = 0; i < d_; ++i) linearise(weights_.node(i), count, gradients != nullptr);
    divergence(first, count, gradients != nullptr);
    if (!gradients) return;
    for (int64_t i = 0; i < d_; ++i) {
      const auto sums = gradients->of(thread, i);
      *sums.log_sigma += log_sigma_[i];
      pass_back(weights_.node(i), count, sums);
    }
    for (int64_t b = 0; b < count; ++b) {
      T* of_pivot = args_.grad_pivot ? args_.grad_pivot + (first + b) * d_ : nullptr;
      T* of_loc = args_.grad_loc ? args_.grad_loc + (first + b) * d_ : nullptr;
      if (of_loc) std::copy_n(&grad_step_[b * d_], d_, of_loc);
      if (of_pivot) std::copy_n(&grad_pivot_[b * row_], d_, of_pivot);
    }
  }

 private:
  void load(int64_t first, int64_t count) {
    for (int64_t b = 0; b < count; ++b) {
      const T *z = args_.pivot[first + b], *loc = args_.loc[first + b];
      for (int64_t i = 0; i < d_; ++i) step_[b * d_ + i] = loc[i] - z[i];
      std::copy_n(z, d_, &pivot_[b * row_]);
      std::fill_n(&pivot_[b * row_ + d_], row_ - d_, T(0));
    }
  }

  void linearise(const Node<T>& node, int64_t count, bool wants_curvature) {
    const int64_t i = node.index;
    network_.activate(node, pivot_.data(), count, wants_curvature);
    network_.jacobian(node, count);
    for (int64_t b = 0; b < count; ++b) {
      const T value = sum_lanes<T>(network_.value_lanes(node, b)) + node.b_out;
      offset_[b * d_ + i] = value - pivot_[b * row_ + i];
      T* out = &jac_[b * size(d_) + size(i)];
      int64_t j = 0;
      for (const Parents* p = node.parents; p != node.parents_end; ++p) {
        std::fill(out + j, out + p->begin, T(0));
        std::copy(network_.jac(b) + p->begin, network_.jac(b) + p->end, out + p->begin);
        j = p->end;
      }
      std::fill(out + j, out + i, T(0));
    }
  }

  void divergence(int64_t first, int64_t count, bool wants_gradient) {
    sem_kl::Arguments<T> args;
    args.batch = count;
    args.d = d_;
    args.jac = {jac_.data(), size(d_)};
    args.offset = {offset_.data(), d_};
    args.log_sigma = args_.log_sigma;
    args.loc = {step_.data(), d_};
    args.scale_tril = {args_.scale_tril[first], args_.scale_tril.stride};
    args.packed_jac = true;
    args.packed_scale_tril = args_.packed_scale_tril;
    args.value = args_.value ? args_.value + first : nullptr;
    if (wants_gradient) {
      args.upstream = {args_.upstream[first], args_.upstream.stride};
      args.grad_jac = grad_jac_.data();
      args.grad_offset = grad_offset_.data();
      args.grad_log_sigma = log_sigma_.data();
      args.grad_loc = grad_step_.data();
      if (args_.grad_scale_tril) {
        args.grad_scale_tril = args_.grad_scale_tril + first * args.scale_tril_layout().size();
      }
      std::fill_n(grad_pivot_.data(), count * row_, T(0));
    }
    sem_kl::CVF_ISA::run<T>(args, 1);
  }

  // The gradient of the offset is that of f.
  void pass_back(const Node<T>& node, int64_t count, const typename NodeGradients<T>::Sums& sums) {
    const int64_t i = node.index;
    network_.activate(node, pivot_.data(), count, true);
    for (int64_t b = 0; b < count; ++b) {
      of_value_[b] = grad_offset_[b * d_ + i];
      T* jac = network_.jac(b);
      std::copy_n(&grad_jac_[b * size(d_) + size(i)], i, jac);
      std::fill(jac + i, jac + node.row, T(0));
    }
    network_.pass_back(node, pivot_.data(), of_value_.data(), count, sums,
                       args_.grad_pivot ? grad_pivot_.data() : nullptr);
  }

  const Arguments<T>& args_;
  const NodeWeights<T>& weights_;
  const int64_t d_, row_;
  NodeKernel<T> network_;
  Scratch<T> pivot_;          // (samples, row): z, padded with zeros
  Scratch<T> step_, offset_;  // (samples, d): loc - z, f - z
  Scratch<T> jac_;            // packed, for each sample
  Scratch<T> of_value_;       // (samples,)
  Scratch<T> log_sigma_;      // (d,): its gradient
  Scratch<T> grad_jac_, grad_offset_, grad_step_;
  Scratch<T> grad_pivot_;  // (samples, row): through the Jacobian
};

}  // namespace cvf::mlp_sem_kl::CVF_ISA
