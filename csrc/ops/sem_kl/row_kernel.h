// sem_kl for a diagonal posterior and a jac of its own for each sample, large d: one pass over the rows of A.
//
// The work is O(d^2) per sample, as much as the traffic: each row is read once from memory, and read a second time,
// from the first level of the cache, for the gradients, which need its residual.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/log_product.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

template <class T>
class RowKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;

 public:
  RowKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        d_(args.d),
        padded_(round_up(args.d, kWidth)),
        jac_end_(args.jac.end(args.batch, args.d * args.d)),
        loc_(padded_),
        variance_(padded_),
        grad_loc_(padded_),
        column_norm_(padded_) {
    for (int64_t j = 0; j < padded_; ++j) loc_[j] = variance_[j] = T(0);
  }

  // Samples [begin, end), with the (d,) sums of the gradients that the batch shares.
  void run(int64_t begin, int64_t end, double* offset_sum, double* log_sigma_sum) {
    grad_jac_end_ = args_.grad_jac ? args_.grad_jac + end * d_ * d_ : nullptr;
    for (int64_t sample = begin; sample < end; ++sample) run_sample(sample, offset_sum, log_sigma_sum);
  }

 private:
  void run_sample(int64_t sample, double* offset_sum, double* log_sigma_sum) {
    const T* loc = args_.loc[sample];
    const T* scale = args_.scale[sample];
    const T* offset = args_.offset[sample];
    const bool gradient = args_.wants_gradient();
    const T upstream = gradient ? *args_.upstream[sample] : T(0);
    for (int64_t j = 0; j < d_; ++j) {
      loc_[j] = loc[j];
      variance_[j] = scale[j] * scale[j];
      column_norm_[j] = noise_.precision(j);
      grad_loc_[j] = T(0);
    }
    double mahalanobis = 0;
    for (int64_t i = 0; i < d_; ++i) {
      const T* row = args_.jac[sample] + i * d_;
      V spread_lanes{}, product_lanes{};
      for (int64_t j = 0; j < i; j += kWidth) {
        const V a = load_row(row, j, i);
        spread_lanes += a * a * load(&variance_[j]);
        product_lanes += a * load(&loc_[j]);
      }
      const T residual = loc[i] - sum_lanes<T>(product_lanes) - offset[i];
      const T spread = variance_[i] + sum_lanes<T>(spread_lanes) + residual * residual;
      const T precision = noise_.precision(i);
      mahalanobis += static_cast<double>(precision * spread);
      if (!gradient) continue;

      const T weighted = precision * residual;
      if (args_.grad_jac) row_gradient(row, i, upstream * precision, residual, sample);
      for (int64_t j = 0; j < i; j += kWidth) {
        const V a = load_row(row, j, i);
        store(&column_norm_[j], load(&column_norm_[j]) + precision * a * a);
        store(&grad_loc_[j], load(&grad_loc_[j]) - weighted * a);
      }
      grad_loc_[i] += weighted;
      log_sigma_sum[i] += static_cast<double>(upstream * (T(1) - precision * spread));
      offset_sum[i] -= static_cast<double>(upstream * weighted);
      if (args_.grad_offset && !args_.shared_offset) args_.grad_offset[sample * d_ + i] = -upstream * weighted;
    }
    if (args_.value) args_.value[sample] = value(mahalanobis, scale);
    for (int64_t j = 0; gradient && j < d_; ++j) {
      if (args_.grad_loc) args_.grad_loc[sample * d_ + j] = upstream * grad_loc_[j];
      if (args_.grad_scale) {
        args_.grad_scale[sample * d_ + j] = upstream * (scale[j] * column_norm_[j] - T(1) / scale[j]);
      }
    }
  }

  // Elements j and following of row i of A, zero on and above the diagonal.
  CVF_INLINE V load_row(const T* row, int64_t j, int64_t i) const {
    if (j + kWidth <= i) return load(row + j);
    if (row + j + kWidth <= jac_end_) return keep_first<T>(load(row + j), i - j);
    return load_partial(row + j, i - j);
  }

  // dA_ij = g / sigma_i^2 (A_ij s_j^2 - r_i loc_j), below the diagonal; weight is g / sigma_i^2.
  CVF_INLINE void row_gradient(const T* row, int64_t i, T weight, T residual, int64_t sample) {
    T* out = args_.grad_jac + (sample * d_ + i) * d_;
    for (int64_t j = 0; j < d_; j += kWidth) {
      V gradient{};
      if (j < i) {
        gradient = weight * (load_row(row, j, i) * load(&variance_[j]) - residual * load(&loc_[j]));
        if (j + kWidth > i) gradient = keep_first<T>(gradient, i - j);
      }
      // What is written past the end of a row is overwritten by the next one.
      if (out + j + kWidth <= grad_jac_end_) {
        store(out + j, gradient);
      } else {
        store_partial<T>(out + j, gradient, d_ - j);
      }
    }
  }

  T value(double mahalanobis, const T* scale) const {
    LogProduct<T> product;
    int64_t j = 0;
    for (; j + kWidth <= d_; j += kWidth) product.multiply(load(scale + j));
    if (j < d_) {
      V rest = V{} + T(1);
      for (int64_t lane = 0; j + lane < d_; ++lane) rest[lane] = scale[j + lane];
      product.multiply(rest);
    }
    double log_det = 0;
    for (int lane = 0; lane < kWidth; ++lane) log_det += product.log(lane);
    return static_cast<T>(0.5 * (mahalanobis - static_cast<double>(d_)) + noise_.log_det - log_det);
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const int64_t d_;
  const int64_t padded_;
  const T* jac_end_;                // a load may not pass it
  T* grad_jac_end_ = nullptr;       // nor a store this: other threads write behind it
  Scratch<T> loc_, variance_;       // (padded,), zero behind d
  Scratch<T> grad_loc_;             // (padded,): W^T D^-1 r
  Scratch<T> column_norm_;          // (padded,): sum_i W_ij^2 / sigma_i^2
};

}  // namespace cvf::sem_kl::CVF_ISA
