// sem_kl for a diagonal posterior and a jac of its own for each sample, large d: one pass over the rows of A.
//
// The work is O(d^2) per sample, as much as the traffic: each row is read once from memory, and read a second time,
// from the first level of the cache, for the gradients, which need its residual.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/log_product.h"
#include "common/output.h"
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
        jac_writer_(args.grad_jac, args.batch * args.d, args.d),
        loc_(padded_),
        variance_(padded_),
        grad_loc_(padded_),
        column_norm_(padded_) {
    for (int64_t j = 0; j < padded_; ++j) loc_[j] = variance_[j] = T(0);
  }

  // Samples [begin, end), with the (d,) sums of the gradients that the batch shares.
  void run(int64_t begin, int64_t end, double* offset_sum, double* log_sigma_sum) {
    for (int64_t sample = begin; sample < end; ++sample) run_sample(sample, offset_sum, log_sigma_sum);
    jac_writer_.finish();
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
    for (int64_t block = 0; block < d_; block += kWidth) {
      const int64_t end = std::min(block + kWidth, d_);
      sum_block(args_.jac[sample], block, end);
      for (int64_t i = block; i < end; ++i) {
        const T residual = loc_[i] - product_[i - block] - offset[i];
        const T spread = variance_[i] + spread_[i - block] + residual * residual;
        const T precision = noise_.precision(i);
        mahalanobis += static_cast<double>(precision * spread);
        if (!gradient) continue;

        const T weighted = precision * residual;
        const T* row = args_.jac[sample] + i * d_;
        if (args_.grad_jac) row_gradient(row, i, upstream * precision, residual, sample);
        add_row(row, i, precision, weighted);
        log_sigma_sum[i] += static_cast<double>(upstream * (T(1) - precision * spread));
        offset_sum[i] -= static_cast<double>(upstream * weighted);
        if (args_.grad_offset && !args_.shared_offset) args_.grad_offset[sample * d_ + i] = -upstream * weighted;
      }
    }
    if (args_.value) args_.value[sample] = value(mahalanobis, scale);
    for (int64_t j = 0; gradient && j < d_; ++j) {
      if (args_.grad_loc) args_.grad_loc[sample * d_ + j] = upstream * grad_loc_[j];
      if (args_.grad_scale) {
        args_.grad_scale[sample * d_ + j] = upstream * (scale[j] * column_norm_[j] - T(1) / scale[j]);
      }
    }
  }

  // sum_j A_ij loc_j and sum_j A_ij^2 s_j^2 of the rows i in [block, end), end <= block + kWidth.
  CVF_INLINE void sum_block(const T* jac, int64_t block, int64_t end) {
    V products[kWidth] = {}, spreads[kWidth] = {};
    for (int64_t i = block; i < end; ++i) {
      V product{}, spread{};
      for (int64_t j = 0; j < i; j += kWidth) {
        const V a = load_row(jac + i * d_, j, i);
        product += a * load(&loc_[j]);
        spread += a * a * load(&variance_[j]);
      }
      products[i - block] = product;
      spreads[i - block] = spread;
    }
    store(product_, sum_rows<T>(products));
    store(spread_, sum_rows<T>(spreads));
  }

  // Adds row i of W, times its part of D^-1 r, to W^T D^-1 r, and its squares / sigma_i^2 to the column norms.
  CVF_INLINE void add_row(const T* row, int64_t i, T precision, T weighted) {
    for (int64_t j = 0; j < i; j += kWidth) {
      const V a = load_row(row, j, i);
      store(&column_norm_[j], load(&column_norm_[j]) + precision * a * a);
      store(&grad_loc_[j], load(&grad_loc_[j]) - weighted * a);
    }
    grad_loc_[i] += weighted;
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
    for (int64_t j = 0; j < i; j += kWidth) {
      const V gradient = weight * (load_row(row, j, i) * load(&variance_[j]) - residual * load(&loc_[j]));
      jac_writer_.write(out, j, keep_first<T>(gradient, i - j));
    }
    jac_writer_.write_zeros(out, round_up(i, kWidth));
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
  const T* jac_end_;  // a load may not pass it
  const RowWriter<T> jac_writer_;
  Scratch<T> loc_, variance_;           // (padded,), zero behind d
  Scratch<T> grad_loc_;                 // (padded,): W^T D^-1 r
  Scratch<T> column_norm_;              // (padded,): sum_i W_ij^2 / sigma_i^2
  T product_[kWidth], spread_[kWidth];  // of the block of rows in hand
};

}  // namespace cvf::sem_kl::CVF_ISA
