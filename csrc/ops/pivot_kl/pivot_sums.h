// Sums over the batch, which become the gradients of what all samples share.
#pragma once

#include "ops/pivot_kl/pivots.h"

namespace cvf::pivot_kl::CVF_ISA {

// Sums of one array for each thread and pivot. They are kept in T, and where a thread adds up many groups of samples,
// flushed every few into totals in double, so that the rounding error does not grow with the batch.
template <class T>
class PerPivot {
 public:
  // Nothing is summed if `size` is 0.
  PerPivot(int64_t size, int64_t pivots, int threads, bool flushes)
      : size_(size),
        pivots_(pivots),
        threads_(threads),
        flushes_(flushes),
        sums_(count()),
        totals_(flushes ? count() : 0) {
    std::fill_n(sums_.data(), count(), T(0));
    if (flushes) std::fill_n(totals_.data(), count(), 0.0);
  }

  explicit operator bool() const { return size_ > 0; }

  T* of(int thread, int64_t k) { return &sums_[(thread * pivots_ + k) * size_]; }

  void flush(int thread) {
    for (int64_t e = thread * pivots_ * size_; e < (thread + 1) * pivots_ * size_; ++e) {
      totals_[e] += static_cast<double>(sums_[e]);
      sums_[e] = T(0);
    }
  }

  // Those of pivot k, of all threads in their order. To be called once for each pivot.
  const T* collect(int64_t k) {
    T* out = of(0, k);
    if (threads_ == 1 && !flushes_) return out;
    for (int64_t e = 0; e < size_; ++e) {
      double sum = 0;
      for (int thread = 0; thread < threads_; ++thread) {
        const int64_t place = (thread * pivots_ + k) * size_ + e;
        sum += flushes_ ? totals_[place] : static_cast<double>(sums_[place]);
      }
      out[e] = static_cast<T>(sum);
    }
    return out;
  }

 private:
  int64_t count() const { return threads_ * pivots_ * size_; }

  int64_t size_, pivots_;
  int threads_;
  bool flushes_;
  Scratch<T> sums_;
  Scratch<double> totals_;
};

// With weights c = dloss/dKL, for each pivot:
//   residual  (d, row), sum_b c D^-1 r loc^T below the diagonal
//   moment    sum_b c L L^T, packed; of diagonal posteriors sum_b c s^2, (row,)
//   offset    (d,), sum_b c D^-1 r
template <class T>
class PivotSums {
 public:
  // Without `flushes`, `flush` does nothing: each thread has few groups of samples.
  PivotSums(const Arguments<T>& args, const Pivots<T>& pivots, int threads, bool flushes)
      : args_(args),
        pivots_(pivots),
        d_(args.d),
        row_(padded_row<T>(args.d)),
        threads_(threads),
        flushes_(flushes),
        residual(args.grad_jac ? d_ * row_ : 0, args.pivots, threads, flushes),
        moment(moment_size(args), args.pivots, threads, flushes),
        offset_total_(args.wants_gradient() ? threads * args.pivots * d_ : 0),
        log_sigma_total_(threads * d_) {
    if (args.wants_gradient()) std::fill_n(offset_total_.data(), threads * args.pivots * d_, 0.0);
    std::fill_n(log_sigma_total_.data(), threads * d_, 0.0);
  }

  static int64_t moment_size(const Arguments<T>& args) {
    if (args.scale_tril) return args.grad_jac ? Packed<T>::size(args.d) : 0;
    return args.grad_jac || args.grad_log_sigma ? padded_row<T>(args.d) : 0;
  }

  double* offset(int thread, int64_t k) { return &offset_total_[(thread * args_.pivots + k) * d_]; }
  double* log_sigma(int thread) { return &log_sigma_total_[thread * d_]; }  // (d,)

  void flush(int thread) {
    if (!flushes_) return;
    residual.flush(thread);
    moment.flush(thread);
  }

  // Into the outputs.
  void write() {
    if (!args_.wants_gradient()) return;
    auto body = [&](int thread, int64_t begin, int64_t end) {
      const bool full = static_cast<bool>(args_.scale_tril);
      Scratch<T> square(full && args_.grad_jac ? d_ * row_ : 0);
      for (int64_t k = begin; k < end; ++k) {
        const T* moments = moment ? moment.collect(k) : nullptr;
        if (args_.grad_jac) {
          const T* residuals = residual.collect(k);
          full ? write_full_jac(k, residuals, moments, square.data()) : write_diagonal_jac(k, residuals, moments);
        }
        if (!full && args_.grad_log_sigma) add_spread(k, moments, log_sigma(thread));
        if (args_.grad_offset) write_offset(k);
      }
    };
    parallel_for(args_.pivots, threads_, body);
    if (!args_.grad_log_sigma) return;
    for (int64_t i = 0; i < d_; ++i) {
      double sum = 0;
      for (int thread = 0; thread < threads_; ++thread) sum += log_sigma(thread)[i];
      args_.grad_log_sigma[i] = static_cast<T>(sum);
    }
  }

 private:
  // dA = -sum_b c (D^-1 W S + D^-1 r loc^T) below the diagonal, S = L L^T, which is unpacked into `square` (d, row).
  void write_full_jac(int64_t k, const T* residuals, const T* moments, T* square) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j <= i; ++j) square[i * row_ + j] = square[j * row_ + i] = *moments++;
      std::fill_n(square + i * row_ + d_, row_ - d_, T(0));
    }
    const T* jac = pivots_.jac(k);
    for (int64_t j = 0; j < row_; j += kLanes<T>) {
      for_tiles<8>(0, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        Vec<T> acc[kRows][1] = {};
        if (j < i + kRows) {
          for (int r = 0; r < kRows; ++r) acc[r][0] = load(square + (i + r) * row_ + j);
          const Right<T> right{reinterpret_cast<const Vec<T>*>(square + j), row_ / kLanes<T>, 1};
          multiply_tile<-1, T>(acc, Left<T>{jac + i * d_, d_, 1}, right, 0, i + kRows - 1);
        }
        for (int r = 0; r < kRows; ++r) {
          const Vec<T> sum = pivots_.precision(i + r) * acc[r][0] + load(residuals + (i + r) * row_ + j);
          write(k, i + r, j, -keep_first<T>(sum, i + r - j));
        }
      });
    }
  }

  // Of L = diag(s), W S = -A diag(s^2) below the diagonal.
  void write_diagonal_jac(int64_t k, const T* residuals, const T* moments) const {
    const T* jac = pivots_.jac(k);
    const T* end = jac + d_ * d_;
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < d_; j += kLanes<T>) {
        const Vec<T> row = load_first(jac + i * d_ + j, d_ - j, end);  // zero from the diagonal on
        const Vec<T> sum = pivots_.precision(i) * row * load(moments + j) - load(residuals + i * row_ + j);
        write(k, i, j, keep_first<T>(sum, i - j));
      }
    }
  }

  // Elements j and following of row i of pivot k's gradient.
  CVF_INLINE void write(int64_t k, int64_t i, int64_t j, Vec<T> v) const {
    T* out = args_.grad_jac + (k * d_ + i) * d_ + j;
    if (j + kLanes<T> <= d_) {
      store(out, v);
    } else {
      store_partial<T>(out, v, d_ - j);
    }
  }

  // The part of dlog_sigma that depends on diagonal posteriors through sum_b c s^2 alone: -|W_i diag(s)|^2 / sigma_i^2.
  void add_spread(int64_t k, const T* moments, double* log_sigma) const {
    for (int64_t i = 0; i < d_; ++i) {
      double spread = static_cast<double>(moments[i]);
      for (int64_t j = 0; j < i; ++j) {
        const double a = static_cast<double>(pivots_.jac(k)[i * d_ + j]);
        spread += a * a * static_cast<double>(moments[j]);
      }
      log_sigma[i] -= static_cast<double>(pivots_.precision(i)) * spread;
    }
  }

  void write_offset(int64_t k) {
    for (int64_t i = 0; i < d_; ++i) {
      double sum = 0;
      for (int thread = 0; thread < threads_; ++thread) sum += offset(thread, k)[i];
      args_.grad_offset[k * d_ + i] = static_cast<T>(-sum);
    }
  }

  const Arguments<T>& args_;
  const Pivots<T>& pivots_;
  const int64_t d_, row_;
  const int threads_;
  const bool flushes_;

 public:
  PerPivot<T> residual, moment;

 private:
  Scratch<double> offset_total_, log_sigma_total_;
};

}  // namespace cvf::pivot_kl::CVF_ISA
