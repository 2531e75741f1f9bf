// Sum of logarithms, one logarithm for many factors.
#pragma once

#include <cmath>
#include <limits>

#include "common/simd.h"

namespace cvf::CVF_ISA {

// The logarithm of a product of numbers in each lane. The mantissas of positive, finite numbers are multiplied
// and their exponents added, so that nothing overflows and a logarithm is taken once. Zero, infinity, NaN and
// negative numbers are multiplied apart and give what the sum of their logarithms would: -inf, inf or NaN.
template <class T>
class LogProduct {
  using S = Simd<T>;
  using Int = typename S::Int;

 public:
  CVF_INLINE void multiply(Vec<T> x) {
    // A subnormal number is scaled up into the normal range.
    constexpr T kScale = T(int64_t{1} << (S::kMantissaBits + 1));
    const Int tiny = (biased_exponent(x) == 0) & kOnes;
    x = tiny ? x * kScale : x;
    const Int biased = biased_exponent(x);  // negative where x is, 0 where x is zero
    const Int regular = (biased > 0) & (biased < 2 * S::kExponentBias + 1);

    const Vec<T> factor = regular ? with_zero_exponent(x) : one();  // in [1, 2)
    const Vec<T> product = mantissa_ * factor;                      // in [1, 4)
    exponent_ += biased_exponent(product) - S::kExponentBias;
    exponent_ += regular & (biased - S::kExponentBias - (tiny & (S::kMantissaBits + 1)));
    mantissa_ = with_zero_exponent(product);

    const Vec<T> rest = x < T(0) ? Vec<T>{} + std::numeric_limits<T>::quiet_NaN() : x;
    special_ *= regular ? one() : rest;
  }

  // Natural logarithm of the product in one lane.
  CVF_INLINE double log(int lane) const {
    const double regular =
        std::log(static_cast<double>(mantissa_[lane])) + kLog2 * static_cast<double>(exponent_[lane]);
    const T special = special_[lane];
    return special == T(1) ? regular : regular + std::log(static_cast<double>(special));
  }

  // Of all lanes together.
  CVF_INLINE double log() const {
    double mantissa = 1;  // below 2^kLanes
    int64_t exponent = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      mantissa *= static_cast<double>(mantissa_[lane]);
      exponent += exponent_[lane];
    }
    double sum = std::log(mantissa) + kLog2 * static_cast<double>(exponent);
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      if (special_[lane] != T(1)) sum += std::log(static_cast<double>(special_[lane]));
    }
    return sum;
  }

 private:
  static constexpr double kLog2 = 0.693147180559945309417232121458;
  static constexpr auto kOnes = static_cast<decltype(Int{}[0] + 0)>(-1);

  static CVF_INLINE Vec<T> one() { return Vec<T>{} + T(1); }

  static CVF_INLINE Int biased_exponent(Vec<T> x) { return reinterpret_cast<Int>(x) >> S::kMantissaBits; }

  static CVF_INLINE Vec<T> with_zero_exponent(Vec<T> x) {
    return reinterpret_cast<Vec<T>>((reinterpret_cast<Int>(x) & S::kMantissaMask) | reinterpret_cast<Int>(one()));
  }

  Vec<T> mantissa_ = one();
  Vec<T> special_ = one();
  Int exponent_ = Int{};
};

}  // namespace cvf::CVF_ISA
