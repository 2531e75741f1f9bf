// mlp_sem_kl for a diagonal posterior: node after node, so that of the Jacobian no more exists than one row, of a tile
// of samples.
//
//   |M_i|^2 = s_i^2 + sum_j J_ij^2 s_j^2,   dJ_ij = g (J_ij s_j^2 - r_i v_j) / sigma_i^2,   v = loc - z
#pragma once

#include "common/log_product.h"
#include "common/noise.h"
#include "ops/mlp_sem_kl/node_kernel.h"

namespace cvf::mlp_sem_kl::CVF_ISA {

// Samples [first, first + count): their inputs, in rows padded with zeros, and what is summed over their nodes.
template <class T>
class Samples {
  static constexpr int64_t kWidth = kLanes<T>;

 public:
  Samples(const Arguments<T>& args, int64_t first, int64_t count)
      : row(round_up(args.d, kWidth)),
        pivot(count * row),
        step(count * row),
        variance(count * row),
        mahalanobis(count),
        squares(args.wants_gradient() ? count * row : 0),
        grad_pivot(args.wants_gradient() ? count * row : 0),
        grad_step(args.wants_gradient() ? count * row : 0),
        args_(args),
        first_(first),
        count_(count) {
    for (int64_t b = 0; b < count; ++b) {
      const T *z = args.pivot[first + b], *loc = args.loc[first + b], *scale = args.scale[first + b];
      for (int64_t j = 0; j < row; ++j) {
        pivot[b * row + j] = j < args.d ? z[j] : T(0);
        step[b * row + j] = j < args.d ? loc[j] - z[j] : T(0);
        variance[b * row + j] = j < args.d ? scale[j] * scale[j] : T(0);
      }
      mahalanobis[b] = 0;
    }
    if (!args.wants_gradient()) return;
    for (Scratch<T>* sum : {&squares, &grad_pivot, &grad_step}) std::fill_n(sum->data(), count * row, T(0));
  }

  // Writes the values, and the gradients of what each sample has for itself.
  void finish(const Noise<T>& noise) {
    for (int64_t b = 0; b < count_; ++b) {
      const int64_t sample = first_ + b;
      const T* scale = args_.scale[sample];
      if (args_.value) {
        const double spread = 0.5 * (mahalanobis[b] - static_cast<double>(args_.d));
        args_.value[sample] = static_cast<T>(spread + noise.log_det - log_det(scale));
      }
      const T* of_step = &grad_step[b * row];
      for (int64_t j = 0; args_.grad_scale && j < args_.d; ++j) {
        const T upstream = *args_.upstream[sample];
        const T spread = noise.precision(j) + squares[b * row + j];
        args_.grad_scale[sample * args_.d + j] = upstream * (scale[j] * spread - T(1) / scale[j]);
      }
      for (int64_t j = 0; args_.grad_loc && j < args_.d; ++j) args_.grad_loc[sample * args_.d + j] += of_step[j];
      for (int64_t j = 0; args_.grad_pivot && j < args_.d; ++j) {
        args_.grad_pivot[sample * args_.d + j] = grad_pivot[b * row + j];
      }
    }
  }

  const int64_t row;
  Scratch<T> pivot, step, variance;  // (count, row): z, v, s^2
  Scratch<double> mahalanobis;       // (count,): sum_i (|M_i|^2 + r_i^2) / sigma_i^2
  Scratch<T> squares;                // (count, row): sum_i J_ij^2 / sigma_i^2
  Scratch<T> grad_pivot;             // (count, row): that of z, through the Jacobian
  Scratch<T> grad_step;              // (count, row): that of v, through J v

 private:
  double log_det(const T* scale) const {
    LogProduct<T> product;
    for (int64_t j = 0; j < args_.d; j += kWidth) {
      V factors = V{} + T(1);
      for (int64_t lane = 0; lane < kWidth && j + lane < args_.d; ++lane) factors[lane] = scale[j + lane];
      product.multiply(factors);
    }
    return product.log();
  }

  using V = Vec<T>;
  const Arguments<T>& args_;
  const int64_t first_, count_;
};

template <class T>
class DiagonalKernel {
  using V = Vec<T>;
  static constexpr int64_t kWidth = kLanes<T>;

 public:
  DiagonalKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        network_(args.activation, args.hidden, round_up(args.d, kWidth)),
        weight_(NodeKernel<T>::kSamples),
        of_value_(NodeKernel<T>::kSamples) {}

  // One node for samples [first, first + count) of those at hand, which begin with sample `begin` of the batch.
  void run(const Node<T>& node, Samples<T>& samples, int64_t begin, int64_t first, int64_t count,
           const typename NodeGradients<T>::Sums* sums) {
    const T* pivot = &samples.pivot[first * samples.row];
    network_.activate(node, pivot, count, sums != nullptr);
    network_.jacobian(node, count);
    for (int64_t b = 0; b < count; b += kWidth) {
      residuals(node, samples, begin, first, b, std::min(kWidth, count - b), sums);
    }
    if (!sums) return;
    for (int64_t b = 0; b < count; ++b) jacobian_gradient(node, samples, first, b);
    T* grad_pivot = args_.grad_pivot ? &samples.grad_pivot[first * samples.row] : nullptr;
    network_.pass_back(node, pivot, of_value_.data(), count, *sums, grad_pivot);
  }

 private:
  // r_i and |M_i|^2 of samples b to b + lanes of a tile, and what follows from them.
  void residuals(const Node<T>& node, Samples<T>& samples, int64_t begin, int64_t first, int64_t b, int64_t lanes,
                 const typename NodeGradients<T>::Sums* sums) {
    V values[kWidth] = {}, squares[kWidth] = {};  // f_i + sum_j J_ij v_j, sum_j J_ij^2 s_j^2
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const T* jac = network_.jac(b + lane);
      const T* step = &samples.step[(first + b + lane) * samples.row];
      const T* variance = &samples.variance[(first + b + lane) * samples.row];
      V value = network_.value_lanes(node, b + lane), square{};
      for (const Parents* p = node.parents; p != node.parents_end; ++p) {
        for (int64_t j = p->begin; j < p->end; j += kWidth) {
          const V a = load(jac + j);
          value += a * load(step + j);
          square += a * a * load(variance + j);
        }
      }
      values[lane] = value;
      squares[lane] = square;
    }
    const V value = sum_rows<T>(values), square = sum_rows<T>(squares);
    const T precision = noise_.precision(node.index);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t k = first + b + lane, sample = begin + k;
      const T residual = args_.loc[sample][node.index] - node.b_out - value[lane];
      const T spread = samples.variance[k * samples.row + node.index] + square[lane] + residual * residual;
      samples.mahalanobis[k] += static_cast<double>(precision * spread);
      if (!sums) continue;
      const T upstream = *args_.upstream[sample];
      weight_[b + lane] = upstream * precision;
      of_value_[b + lane] = -upstream * precision * residual;
      *sums->log_sigma += upstream * (T(1) - precision * spread);
      if (args_.grad_loc) args_.grad_loc[sample * args_.d + node.index] = -of_value_[b + lane];
    }
  }

  // dJ_ij in the place of J_ij, and what J_ij adds to sums over nodes.
  CVF_INLINE void jacobian_gradient(const Node<T>& node, Samples<T>& samples, int64_t first, int64_t b) {
    const int64_t begin = (first + b) * samples.row;
    T* jac = network_.jac(b);
    const T weight = weight_[b], of_value = of_value_[b], precision = noise_.precision(node.index);
    for (const Parents* p = node.parents; p != node.parents_end; ++p) {
      for (int64_t j = p->begin; j < p->end; j += kWidth) {
        const V a = load(jac + j);
        T *squares = &samples.squares[begin + j], *of_step = &samples.grad_step[begin + j];
        store(squares, load(squares) + precision * a * a);
        store(of_step, load(of_step) + of_value * a);
        store(jac + j, weight * a * load(&samples.variance[begin + j]) + of_value * load(&samples.step[begin + j]));
      }
    }
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  NodeKernel<T> network_;
  Scratch<T> weight_;    // (samples,): g / sigma_i^2
  Scratch<T> of_value_;  // (samples,): the gradient of f_i, -g r_i / sigma_i^2
};

}  // namespace cvf::mlp_sem_kl::CVF_ISA
