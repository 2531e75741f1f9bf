// What all kernels of sem_kl share: the parameters of the noise, and gradients that are summed over the batch.
#pragma once

#include <algorithm>

#include "common/log_product.h"
#include "common/noise.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/simd.h"
#include "ops/sem_kl/sem_kl.h"

namespace cvf::sem_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// The KL of one sample from its Mahalanobis part, sum_i (|M_i|^2 + r_i^2) / sigma_i^2, and log det L.
template <class T>
T kl_value(const Noise<T>& noise, int64_t d, double mahalanobis, double log_det) {
  return static_cast<T>(0.5 * (mahalanobis - static_cast<double>(d)) + noise.log_det - log_det);
}

// Gradients of what the batch shares. Each thread adds to its own buffer in T and flushes it every few samples
// into totals in double, so that the rounding error does not grow with the batch.
template <class T>
class SharedSums {
 public:
  // Where fewer threads add to them than there are, `available` of them share the rest of the work.
  SharedSums(const Arguments<T>& args, int threads, int available, int64_t row)
      : args_(args),
        row_(row),
        threads_(threads),
        available_(std::max(threads, available)),
        jac_(args.shared_jac && args.grad_jac ? threads * args.d * row : 0),
        jac_total_(args.shared_jac && args.grad_jac ? threads * args.d * args.d : 0),
        offset_total_(threads * args.d),
        log_sigma_total_(threads * args.d) {
    if (sums_jac()) {
      for_rows(threads * args.d, [&](int64_t i) {
        std::fill_n(&jac_[i * row_], row_, T(0));
        std::fill_n(&jac_total_[i * args.d], args.d, 0.0);
      });
    }
    for (int64_t i = 0; i < threads * args.d; ++i) offset_total_[i] = log_sigma_total_[i] = 0;
  }

  bool sums_jac() const { return args_.shared_jac && args_.grad_jac; }

  // (d, row): a thread's buffer for the gradient of a shared jac. Only what is below the diagonal counts.
  T* jac(int thread) { return &jac_[thread * args_.d * row_]; }
  // (d,): a thread's totals.
  double* offset(int thread) { return &offset_total_[thread * args_.d]; }
  double* log_sigma(int thread) { return &log_sigma_total_[thread * args_.d]; }

  void flush_jac(int thread) {
    T* buffer = jac(thread);
    double* total = &jac_total_[thread * args_.d * args_.d];
    for (int64_t i = 0; i < args_.d; ++i) {
      for (int64_t j = 0; j < i; ++j) total[i * args_.d + j] += static_cast<double>(buffer[i * row_ + j]);
      for (int64_t j = 0; j < row_; ++j) buffer[i * row_ + j] = T(0);
    }
  }

  // Adds up the threads, in their order, into the outputs.
  void write() const {
    const int64_t d = args_.d;
    if (sums_jac()) {
      for_rows(d, [&](int64_t i) {
        T* row = args_.grad_jac + args_.jac_layout().row(i);
        for (int64_t j = 0; j < i; ++j) row[j] = sum_of_threads(jac_total_, d * d, i * d + j);
        for (int64_t j = i; j < (args_.packed_jac ? i + 1 : d); ++j) row[j] = T(0);
      });
    }
    if (args_.shared_offset && args_.grad_offset) reduce(offset_total_, d, args_.grad_offset);
    if (args_.grad_log_sigma) reduce(log_sigma_total_, d, args_.grad_log_sigma);
  }

 private:
  // Calls body(i) for `rows` rows of the sums for a jac, each of which is moved from and to memory.
  template <class Body>
  void for_rows(int64_t rows, Body&& body) const {
    const double work = kWorkToMove * static_cast<double>(threads_ * args_.d * args_.d);
    parallel_each(rows, threads_for(rows, work, available_), body);
  }

  void reduce(const Scratch<double>& totals, int64_t count, T* out) const {
    for (int64_t i = 0; i < count; ++i) out[i] = sum_of_threads(totals, count, i);
  }

  T sum_of_threads(const Scratch<double>& totals, int64_t count, int64_t i) const {
    double sum = 0;
    for (int thread = 0; thread < threads_; ++thread) sum += totals[thread * count + i];
    return static_cast<T>(sum);
  }

  const Arguments<T>& args_;
  int64_t row_;
  int threads_, available_;
  Scratch<T> jac_;
  Scratch<double> jac_total_, offset_total_, log_sigma_total_;
};

}  // namespace cvf::sem_kl::CVF_ISA
