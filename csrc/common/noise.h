// The noise of a structural equation model, n_i ~ N(0, sigma_i^2), as divergences need it.
#pragma once

#include <cmath>

#include "common/scratch.h"
#include "common/simd.h"

namespace cvf::CVF_ISA {

// 1 / sigma_i^2 and sum_i log sigma_i.
template <class T>
class Noise {
 public:
  Noise(const T* log_sigma, int64_t d) : precision_(round_up(d, kPadding)) {
    for (int64_t i = 0; i < round_up(d, kPadding); ++i) precision_[i] = T(0);
    for (int64_t i = 0; i < d; ++i) {
      precision_[i] = static_cast<T>(std::exp(-2.0 * static_cast<double>(log_sigma[i])));
      log_det += static_cast<double>(log_sigma[i]);
    }
  }

  T precision(int64_t i) const { return precision_[i]; }
  // Those of the nodes i and following, zero behind the last one.
  Vec<T> precisions(int64_t i) const { return load(&precision_[i]); }

  double log_det = 0;

 private:
  static constexpr int kPadding = kCacheLine / sizeof(T);
  Scratch<T> precision_;  // (d,), and zeros to the end of the cache line
};

}  // namespace cvf::CVF_ISA
