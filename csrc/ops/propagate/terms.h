// What all kernels of propagate share.
#pragma once

#include <cmath>

#include "common/scratch.h"
#include "common/simd.h"
#include "ops/propagate/propagate.h"

namespace cvf::propagate::CVF_ISA {

using namespace cvf::CVF_ISA;

// The standard deviations of the noise, (d,).
template <class T>
class Sigma {
 public:
  Sigma(const T* log_sigma, int64_t d) : values_(d) {
    for (int64_t i = 0; i < d; ++i) values_[i] = static_cast<T>(std::exp(static_cast<double>(log_sigma[i])));
  }

  T operator[](int64_t i) const { return values_[i]; }

 private:
  Scratch<T> values_;
};

}  // namespace cvf::propagate::CVF_ISA
