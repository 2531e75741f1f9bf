// Activations and their derivatives in vectors, to a few units in the last place; NaN gives NaN.
//
// All but the leaky ReLU come from the exponential of a number that is not positive, so nothing overflows, and
// nothing cancels but where the function itself goes through zero.
#pragma once

#include <array>

#include "common/activation.h"
#include "common/simd.h"

namespace cvf::CVF_ISA {
namespace detail {

// 1 / (k + 2)!
template <class T, size_t kTerms>
constexpr std::array<T, kTerms> inverse_factorials() {
  std::array<T, kTerms> terms{};
  long double factorial = 1;
  for (size_t k = 0; k < kTerms; ++k) {
    factorial *= static_cast<long double>(k + 2);
    terms[k] = static_cast<T>(1 / factorial);
  }
  return terms;
}

// 1 / (2 k + 3)
template <class T, size_t kTerms>
constexpr std::array<T, kTerms> inverse_odds() {
  std::array<T, kTerms> terms{};
  for (size_t k = 0; k < kTerms; ++k) terms[k] = static_cast<T>(1 / static_cast<long double>(2 * k + 3));
  return terms;
}

// terms[0] + x (terms[1] + x (terms[2] + ...))
template <class T, size_t kTerms>
CVF_INLINE Vec<T> polynomial(const std::array<T, kTerms>& terms, Vec<T> x) {
  Vec<T> sum = broadcast(terms[kTerms - 1]);
  for (size_t k = kTerms - 1; k-- > 0;) sum = sum * x + terms[k];
  return sum;
}

// Where the series below end: the next term is under a quarter of a unit in the last place.
template <class T>
inline constexpr size_t kExpTerms = std::is_same_v<T, float> ? 6 : 13;
template <class T>
inline constexpr size_t kLog1pTerms = std::is_same_v<T, float> ? 4 : 10;
template <class T>
inline constexpr T kLowestExponent = std::is_same_v<T, float> ? T(-87.33) : T(-708.39);  // of a normal number
// ln 2 = high + low; n * high is exact for the exponents n of all numbers.
template <class T>
inline constexpr T kLn2High = std::is_same_v<T, float> ? T(0.693359375) : T(6.93145751953125e-1);
template <class T>
inline constexpr T kLn2Low = std::is_same_v<T, float> ? T(-2.12194440054690583e-4) : T(1.42860682030941723212e-6);

template <class T>
CVF_INLINE Vec<T> negative_magnitude(Vec<T> x) {
  using Int = typename Simd<T>::Int;
  return reinterpret_cast<Vec<T>>(reinterpret_cast<Int>(x) | reinterpret_cast<Int>(broadcast(T(-0.0))));
}

template <class T>
struct Exponential {
  Vec<T> value;      // exp(x)
  Vec<T> minus_one;  // exp(x) - 1, without cancellation
};

// For x <= 0. With x = n ln 2 + r, |r| <= ln 2 / 2: exp(x) = 2^n exp(r), and exp(r) by its series. Below the logarithm
// of the smallest normal number it is 0.
template <class T>
CVF_INLINE Exponential<T> exponential(Vec<T> x) {
  using S = Simd<T>;
  using Int = typename S::Int;
  constexpr T kLog2E = T(1.442695040888963407359924681001892137L);
  constexpr T kRound = T(3 * (int64_t{1} << (S::kMantissaBits - 1)));  // adding it rounds to an integer
  const Vec<T> clamped = x < kLowestExponent<T> ? broadcast(kLowestExponent<T>) : x;
  const Vec<T> shifted = clamped * kLog2E + kRound;
  const Vec<T> n = shifted - kRound;
  const Vec<T> r = (clamped - n * kLn2High<T>)-n * kLn2Low<T>;
  const Vec<T> series = r + r * r * polynomial<T>(inverse_factorials<T, kExpTerms<T>>(), r);  // exp(r) - 1
  // The last bits of `shifted` are those of n.
  const Vec<T> power = reinterpret_cast<Vec<T>>((reinterpret_cast<Int>(shifted) << S::kMantissaBits) +
                                                reinterpret_cast<Int>(Vec<T>{} + T(1)));
  const Vec<T> value = power * series + power;
  return {x < kLowestExponent<T> ? Vec<T>{} : value, power * series + (power - T(1))};
}

// log(1 + x) for x in [0, 1], as 2 artanh(s), or as ln 2 + 2 artanh(s) where 1 + x is nearer to 2; |s| < 0.172.
template <class T>
CVF_INLINE Vec<T> log1p_of_fraction(Vec<T> x) {
  const auto large = x > T(0.4142135623730951);
  const Vec<T> s = (large ? x - T(1) : x) / (large ? x + T(3) : x + T(2));
  const Vec<T> twice = s + s, square = s * s;
  const Vec<T> series = twice + twice * square * polynomial<T>(inverse_odds<T, kLog1pTerms<T>>(), square);
  return large ? series + T(0.693147180559945309417232121458L) : series;
}

template <class T, Activation kActivation>
struct Function;

template <class T>
struct Function<T, Activation::kTanh> {
  static CVF_INLINE Vec<T> value(Vec<T> x) {
    using Int = typename Simd<T>::Int;
    const Vec<T> e = exponential<T>(T(2) * negative_magnitude<T>(x)).minus_one;
    const Int sign = reinterpret_cast<Int>(x) & reinterpret_cast<Int>(broadcast(T(-0.0)));
    return reinterpret_cast<Vec<T>>(reinterpret_cast<Int>(-e / (e + T(2))) | sign);
  }
  static CVF_INLINE Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
    using Int = typename Simd<T>::Int;
    const Exponential<T> e = exponential<T>(T(2) * negative_magnitude<T>(x));
    const Vec<T> inverse = T(1) / (e.minus_one + T(2));
    const Int sign = reinterpret_cast<Int>(x) & reinterpret_cast<Int>(broadcast(T(-0.0)));
    slope = T(4) * e.value * inverse * inverse;
    return reinterpret_cast<Vec<T>>(reinterpret_cast<Int>(-e.minus_one * inverse) | sign);
  }
  static CVF_INLINE Vec<T> value_and_derivatives(Vec<T> x, Vec<T>& slope, Vec<T>& curvature) {
    const Vec<T> y = value_and_slope(x, slope);
    curvature = T(-2) * y * slope;
    return y;
  }
};

// The logistic function at x, and at -x.
template <class T>
struct Logistic {
  Vec<T> at, at_negative;

  explicit CVF_INLINE Logistic(Vec<T> x) {
    const Vec<T> e = exponential<T>(negative_magnitude<T>(x)).value;
    const Vec<T> large = T(1) / (e + T(1)), small = e * large;
    at = x < T(0) ? small : large;
    at_negative = x < T(0) ? large : small;
  }
};

template <class T>
struct Function<T, Activation::kSilu> {
  static CVF_INLINE Vec<T> value(Vec<T> x) {
    const Vec<T> e = exponential<T>(negative_magnitude<T>(x)).value;
    return x * ((x < T(0) ? e : Vec<T>{} + T(1)) / (e + T(1)));
  }
  static CVF_INLINE Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
    const Logistic<T> logistic(x);
    slope = logistic.at * (T(1) + x * logistic.at_negative);
    return x * logistic.at;
  }
  static CVF_INLINE Vec<T> value_and_derivatives(Vec<T> x, Vec<T>& slope, Vec<T>& curvature) {
    const Logistic<T> logistic(x);
    slope = logistic.at * (T(1) + x * logistic.at_negative);
    curvature = logistic.at * logistic.at_negative * (T(2) + x * (logistic.at_negative - logistic.at));
    return x * logistic.at;
  }
};

template <class T>
struct Function<T, Activation::kSoftplus> {
  static CVF_INLINE Vec<T> value(Vec<T> x) {
    return (x < T(0) ? Vec<T>{} : x) + log1p_of_fraction<T>(exponential<T>(negative_magnitude<T>(x)).value);
  }
  static CVF_INLINE Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
    const Vec<T> e = exponential<T>(negative_magnitude<T>(x)).value;
    slope = (x < T(0) ? e : Vec<T>{} + T(1)) / (e + T(1));
    return (x < T(0) ? Vec<T>{} : x) + log1p_of_fraction<T>(e);
  }
  static CVF_INLINE Vec<T> value_and_derivatives(Vec<T> x, Vec<T>& slope, Vec<T>& curvature) {
    const Vec<T> e = exponential<T>(negative_magnitude<T>(x)).value;
    const Vec<T> large = T(1) / (e + T(1)), small = e * large;
    slope = x < T(0) ? small : large;
    curvature = large * small;
    return (x < T(0) ? Vec<T>{} : x) + log1p_of_fraction<T>(e);
  }
};

template <class T>
struct Function<T, Activation::kLeakyRelu> {
  static CVF_INLINE Vec<T> value(Vec<T> x) { return x > T(0) ? x : x * T(0.01); }
  static CVF_INLINE Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
    slope = x > T(0) ? Vec<T>{} + T(1) : Vec<T>{} + T(0.01);
    return x * slope;
  }
  static CVF_INLINE Vec<T> value_and_derivatives(Vec<T> x, Vec<T>& slope, Vec<T>& curvature) {
    curvature = Vec<T>{};
    return value_and_slope(x, slope);
  }
};

// Calls body(Function) for the function of an activation.
template <class T, class Body>
CVF_INLINE void with_function(Activation activation, Body&& body) {
  switch (activation) {
    case Activation::kTanh:
      return body(Function<T, Activation::kTanh>{});
    case Activation::kSilu:
      return body(Function<T, Activation::kSilu>{});
    case Activation::kSoftplus:
      return body(Function<T, Activation::kSoftplus>{});
    case Activation::kLeakyRelu:
      return body(Function<T, Activation::kLeakyRelu>{});
  }
}

}  // namespace detail

// x (count,) becomes phi(x).
template <class T>
CVF_NOINLINE void activate(Activation activation, Vec<T>* x, int64_t count) {
  detail::with_function<T>(activation, [&](auto function) {
    for (int64_t k = 0; k < count; ++k) x[k] = function.value(x[k]);
  });
}

// x (count,) becomes phi(x), and slope (count,) phi'(x).
template <class T>
CVF_NOINLINE void activate_with_slope(Activation activation, Vec<T>* x, Vec<T>* slope, int64_t count) {
  detail::with_function<T>(activation, [&](auto function) {
    for (int64_t k = 0; k < count; ++k) x[k] = function.value_and_slope(x[k], slope[k]);
  });
}

// The same with curvature (count,), phi''(x); 0 for the leaky ReLU.
template <class T>
CVF_NOINLINE void activate_with_derivatives(Activation activation, Vec<T>* x, Vec<T>* slope, Vec<T>* curvature,
                                            int64_t count) {
  detail::with_function<T>(activation, [&](auto function) {
    for (int64_t k = 0; k < count; ++k) x[k] = function.value_and_derivatives(x[k], slope[k], curvature[k]);
  });
}

}  // namespace cvf::CVF_ISA
