// What all samples share: the pivots, in the form that the kernel needs, and the sums that become their gradients.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/scratch.h"
#include "common/simd.h"
#include "ops/pivot_kl/pivot_kl.h"

namespace cvf::pivot_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The noise, A_k without its upper triangle, and W_k^T D^-1 W_k: its diagonal, or all of it.
template <class T>
class Pivots {
 public:
  explicit Pivots(const Arguments<T>& args)
      : d_(args.d),
        square_(round_up(args.d * args.d, kLanes<T>)),
        has_products_(args.scale_tril && args.grad_scale_tril),
        precision_(args.d),
        jac_(args.pivots * args.d * args.d),
        column_norm_(args.pivots * args.d),
        product_(has_products_ ? args.pivots * square_ : 0) {
    for (int64_t i = 0; i < d_; ++i) {
      precision_[i] = static_cast<T>(std::exp(-2.0 * static_cast<double>(args.log_sigma[i])));
      log_det += static_cast<double>(args.log_sigma[i]);
    }
    for (int64_t k = 0; k < args.pivots; ++k) {
      copy_jac(args.jac[k], &jac_[k * d_ * d_]);
      column_norms(jac(k), &column_norm_[k * d_]);
      if (has_products_) multiply(jac(k), &product_[k * square_]);
    }
  }

  T precision(int64_t i) const { return precision_[i]; }
  const T* jac(int64_t k) const { return &jac_[k * d_ * d_]; }             // (d, d), zero on and above the diagonal
  const T* column_norm(int64_t k) const { return &column_norm_[k * d_]; }  // (d,): sum_i W_ij^2 / sigma_i^2
  // (d, d), below the diagonal: W^T D^-1 W. Those of the next pivots follow `square` elements apart.
  const T* product(int64_t k) const { return &product_[k * square_]; }
  int64_t square() const { return square_; }

  double log_det = 0;  // sum_i log sigma_i

 private:
  void copy_jac(const T* source, T* out) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < d_; ++j) out[i * d_ + j] = j < i ? source[i * d_ + j] : T(0);
    }
  }

  void column_norms(const T* jac, T* out) const {
    for (int64_t j = 0; j < d_; ++j) out[j] = precision_[j];
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < i; ++j) out[j] += precision_[i] * jac[i * d_ + j] * jac[i * d_ + j];
    }
  }

  void multiply(const T* jac, T* out) const {
    std::fill_n(out, square_, T(0));
    for (int64_t t = 0; t < d_; ++t) {
      const T* row = jac + t * d_;  // of W: -row, and 1 on the diagonal
      for (int64_t i = 0; i < t; ++i) {
        const T weight = precision_[t] * row[i];
        for (int64_t j = 0; j <= i; ++j) out[i * d_ + j] += weight * row[j];
      }
      for (int64_t j = 0; j < t; ++j) out[t * d_ + j] -= precision_[t] * row[j];
      out[t * d_ + t] += precision_[t];
    }
  }

  int64_t d_, square_;
  bool has_products_;
  Scratch<T> precision_, jac_, column_norm_, product_;
};

// Sums over the batch. Each thread adds to buffers in T and flushes them every few groups of samples into totals in
// double, so that the rounding error does not grow with the batch; small ones are in double from the start.
template <class T>
class PivotSums {
 public:
  PivotSums(const Arguments<T>& args, const Pivots<T>& pivots, int threads)
      : args_(args),
        pivots_(pivots),
        threads_(args.wants_gradient() ? threads : 0),
        row_(padded_row(args.d)),
        has_second_moment_(args.scale_tril && args.grad_jac),
        jac_(args.grad_jac ? threads_ * args.pivots * args.d * row_ : 0),
        moment_(has_second_moment_ ? threads_ * args.pivots * pivots.square() : 0),
        jac_total_(args.grad_jac ? threads_ * args.pivots * args.d * args.d : 0),
        moment_total_(has_second_moment_ ? threads_ * args.pivots * args.d * args.d : 0),
        offset_total_(threads_ * args.pivots * args.d),
        variance_total_(threads_ * args.pivots * args.d),
        log_sigma_total_(threads_ * args.d) {
    const int64_t pairs = threads_ * args.pivots;
    if (args.grad_jac) {
      std::fill_n(jac_.data(), pairs * args.d * row_, T(0));
      std::fill_n(jac_total_.data(), pairs * args.d * args.d, 0.0);
    }
    if (has_second_moment_) {
      std::fill_n(moment_.data(), pairs * pivots.square(), T(0));
      std::fill_n(moment_total_.data(), pairs * args.d * args.d, 0.0);
    }
    std::fill_n(offset_total_.data(), pairs * args.d, 0.0);
    std::fill_n(variance_total_.data(), pairs * args.d, 0.0);
    std::fill_n(log_sigma_total_.data(), threads_ * args.d, 0.0);
  }

  // Elements between the rows of a buffer of `jac`.
  static int64_t padded_row(int64_t d) { return round_up(d, kLanes<T>); }

  // Of a thread and a pivot, weights c = dloss/dKL: (d, row), sum_b c D^-1 r loc^T below the diagonal.
  T* jac(int thread, int64_t k) { return &jac_[(thread * args_.pivots + k) * args_.d * row_]; }
  // (square,): sum_b c L L^T, below the diagonal. Those of the next pivots follow.
  T* moment(int thread, int64_t k) { return &moment_[(thread * args_.pivots + k) * pivots_.square()]; }
  // (d,): sum_b c D^-1 r
  double* offset(int thread, int64_t k) { return &offset_total_[(thread * args_.pivots + k) * args_.d]; }
  // (d,): sum_b c s^2, of diagonal posteriors
  double* variance(int thread, int64_t k) { return &variance_total_[(thread * args_.pivots + k) * args_.d]; }
  double* log_sigma(int thread) { return &log_sigma_total_[thread * args_.d]; }  // (d,)
  bool has_second_moment() const { return has_second_moment_; }

  void flush(int thread) {
    const int64_t d = args_.d;
    for (int64_t k = 0; k < args_.pivots; ++k) {
      const int64_t total = (thread * args_.pivots + k) * d * d;
      if (args_.grad_jac) drain(jac(thread, k), row_, &jac_total_[total]);
      if (has_second_moment_) drain(moment(thread, k), d, &moment_total_[total]);
    }
  }

  // Adds up the threads, in their order, into the outputs.
  void write() {
    if (threads_ == 0) return;
    const int64_t d = args_.d, count = args_.pivots * d;
    for (int thread = 1; thread < threads_; ++thread) {
      if (args_.grad_jac) add(jac_total_, thread, count * d);
      if (has_second_moment_) add(moment_total_, thread, count * d);
      add(offset_total_, thread, count);
      add(variance_total_, thread, count);
      add(log_sigma_total_, thread, d);
    }
    for (int64_t k = 0; k < args_.pivots; ++k) {
      if (args_.grad_jac) write_jac(k);
      if (args_.scale && args_.grad_log_sigma) add_spread(k);
      if (!args_.grad_offset) continue;
      for (int64_t i = 0; i < d; ++i) args_.grad_offset[k * d + i] = static_cast<T>(-offset_total_[k * d + i]);
    }
    if (!args_.grad_log_sigma) return;
    for (int64_t i = 0; i < d; ++i) args_.grad_log_sigma[i] = static_cast<T>(log_sigma_total_[i]);
  }

 private:
  void drain(T* buffer, int64_t row, double* total) const {
    for (int64_t i = 0; i < args_.d; ++i) {
      for (int64_t j = 0; j <= i; ++j) total[i * args_.d + j] += static_cast<double>(buffer[i * row + j]);
      std::fill_n(buffer + i * row, row, T(0));
    }
  }

  static void add(Scratch<double>& totals, int thread, int64_t count) {
    for (int64_t k = 0; k < count; ++k) totals[k] += totals[thread * count + k];
  }

  // dA = -sum_b c (D^-1 W S + D^-1 r loc^T) below the diagonal, S = L L^T; of L = diag(s), W S = -A diag(s^2) there.
  void write_jac(int64_t k) {
    const int64_t d = args_.d;
    const T* jac = pivots_.jac(k);
    for (int64_t i = 0; i < d; ++i) {
      double* row = &jac_total_[(k * d + i) * d];
      const double precision = static_cast<double>(pivots_.precision(i));
      if (has_second_moment_) {
        for (int64_t j = 0; j < i; ++j) row[j] += precision * moment(k, i, j);
        for (int64_t t = 0; t < i; ++t) {
          const double weight = precision * static_cast<double>(jac[i * d + t]);
          for (int64_t j = 0; j < i; ++j) row[j] -= weight * moment(k, t, j);
        }
      } else {
        for (int64_t j = 0; j < i; ++j) {
          row[j] -= precision * static_cast<double>(jac[i * d + j]) * variance_total_[k * d + j];
        }
      }
      for (int64_t j = 0; j < d; ++j) args_.grad_jac[(k * d + i) * d + j] = j < i ? static_cast<T>(-row[j]) : T(0);
    }
  }

  double moment(int64_t k, int64_t i, int64_t j) const {
    return moment_total_[(k * args_.d + std::max(i, j)) * args_.d + std::min(i, j)];
  }

  // The part of dlog_sigma that depends on diagonal posteriors through sum_b c s^2 alone: -|W_i diag(s)|^2 / sigma_i^2.
  void add_spread(int64_t k) {
    const double* variance = &variance_total_[k * args_.d];
    for (int64_t i = 0; i < args_.d; ++i) {
      double spread = variance[i];
      for (int64_t j = 0; j < i; ++j) {
        const double a = static_cast<double>(pivots_.jac(k)[i * args_.d + j]);
        spread += a * a * variance[j];
      }
      log_sigma_total_[i] -= static_cast<double>(pivots_.precision(i)) * spread;
    }
  }

  const Arguments<T>& args_;
  const Pivots<T>& pivots_;
  const int threads_;
  const int64_t row_;
  const bool has_second_moment_;
  Scratch<T> jac_, moment_;
  Scratch<double> jac_total_, moment_total_, offset_total_, variance_total_, log_sigma_total_;
};

}  // namespace cvf::pivot_kl::CVF_ISA
