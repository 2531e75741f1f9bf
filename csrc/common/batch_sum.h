// Gradients of what the batch shares.
#pragma once

#include <algorithm>

#include "common/parallel.h"
#include "common/scratch.h"

namespace cvf::CVF_ISA {

// Sums over the batch of `count` numbers, in double, so that the rounding error does not grow with the batch. Each
// thread has its own, which `write` adds up in their order.
template <class T>
class BatchSum {
 public:
  // Nothing is summed if `out` (count,) is null. Where fewer threads add to it than there are, `available` of them
  // share the rest of the work.
  BatchSum(T* out, int64_t count, int threads, int available = 1)
      : out_(out),
        count_(out ? count : 0),
        threads_(threads),
        available_(std::max(threads, available)),
        totals_(count_ * threads) {
    share(count_ * threads, [&](int64_t k) { totals_[k] = 0; });
  }

  explicit operator bool() const { return out_ != nullptr; }

  // (count,), or null if nothing is summed.
  double* of_thread(int thread) { return out_ ? &totals_[thread * count_] : nullptr; }

  // To `out`, or onto what is there.
  void write(bool add = false) const {
    share(count_, [&](int64_t k) {
      double sum = add ? static_cast<double>(out_[k]) : 0;
      for (int thread = 0; thread < threads_; ++thread) sum += totals_[thread * count_ + k];
      out_[k] = static_cast<T>(sum);
    });
  }

 private:
  // Calls body(k) for all k < count, each of which moves a number or one of each thread from and to memory.
  template <class Body>
  void share(int64_t count, Body&& body) const {
    const double work = kWorkToMove * static_cast<double>(count_ * threads_);
    parallel_each(count, threads_for(count, work, available_), body);
  }

  T* out_;
  int64_t count_;
  int threads_, available_;
  Scratch<double> totals_;
};

}  // namespace cvf::CVF_ISA
