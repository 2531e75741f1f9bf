// Activations and their derivatives against the formulas in long double; built once for each instruction set.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "common/vector_activation.h"

namespace {

using namespace cvf::CVF_ISA;
using cvf::Activation;

struct Truth {
  long double value, slope, curvature;
};

Truth truth(Activation activation, long double x) {
  const long double logistic = 1 / (1 + std::exp(-x)), change = logistic / (1 + std::exp(x));
  const long double squared_secant = 1 / (std::cosh(x) * std::cosh(x));
  switch (activation) {
    case Activation::kTanh:
      return {std::tanh(x), squared_secant, -2 * std::tanh(x) * squared_secant};
    case Activation::kSilu:
      return {x * logistic, logistic + x * change, change * (2 - x * std::tanh(x / 2))};
    case Activation::kSoftplus:
      return {std::fmax(x, 0.0L) + std::log1p(std::exp(-std::fabs(x))), logistic, change};
    default:
      return {x > 0 ? x : 0.01L * x, x > 0 ? 1 : 0.01L, 0};
  }
}

template <class T>
std::vector<T> arguments() {
  std::vector<T> x;
  for (int k = -20000; k <= 20000; ++k) x.push_back(static_cast<T>(k) * T(0.005));
  for (T small = T(1); small > std::numeric_limits<T>::min(); small *= T(0.7)) {
    x.push_back(small);
    x.push_back(-small);
  }
  // Where the exponent n of exp(x) = 2^n exp(r), or of exp(2 x), changes.
  for (int n = 0; n < 40; ++n) {
    for (const T ulps : {T(-1), T(0), T(1)}) {
      const T edge =
          static_cast<T>((n + 0.5L) * 0.693147180559945309417L) * (1 + ulps * std::numeric_limits<T>::epsilon());
      for (const T factor : {T(1), T(-1), T(0.5), T(-0.5)}) x.push_back(factor * edge);
    }
  }
  for (const T large : {T(700), T(1e10), std::numeric_limits<T>::max()}) {
    x.push_back(large);
    x.push_back(-large);
  }
  while (x.size() % static_cast<size_t>(kLanes<T>) != 0) x.push_back(T(0));
  return x;
}

template <class T>
void test_values(Activation activation) {
  const std::vector<T> x = arguments<T>();
  const int64_t count = static_cast<int64_t>(x.size()) / kLanes<T>;
  std::vector<Vec<T>> values, slopes(static_cast<size_t>(count)), curvatures(slopes), other_slopes(slopes);
  for (int64_t k = 0; k < count; ++k) values.push_back(load(&x[static_cast<size_t>(k * kLanes<T>)]));
  std::vector<Vec<T>> alone = values, with_curvature = values;
  activate<T>(activation, alone.data(), count);
  activate_with_slope<T>(activation, values.data(), slopes.data(), count);
  activate_with_derivatives<T>(activation, with_curvature.data(), other_slopes.data(), curvatures.data(), count);
  constexpr double kUlps = 4, kEpsilon = std::numeric_limits<T>::epsilon();
  for (size_t k = 0; k < x.size(); ++k) {
    const size_t vector = k / static_cast<size_t>(kLanes<T>), lane = k % static_cast<size_t>(kLanes<T>);
    const Truth expected = truth(activation, static_cast<long double>(x[k]));
    // What is below the smallest normal number may be lost, times x in the case of silu.
    const double lost =
        2 * static_cast<double>(std::numeric_limits<T>::min()) * std::fmax(1.0, std::fabs(static_cast<double>(x[k])));
    const double unit = lost / (kUlps * kEpsilon);
    // The derivative of silu goes through zero, near x = -1.28.
    const double slope_unit = activation == Activation::kSilu && x[k] < 0 && x[k] > -4 ? 0.25 : unit;
    CHECK(cvf::test::close(static_cast<double>(alone[vector][lane]), static_cast<double>(expected.value),
                           kUlps * kEpsilon, unit));
    CHECK(cvf::test::close(static_cast<double>(values[vector][lane]), static_cast<double>(expected.value),
                           kUlps * kEpsilon, unit));
    CHECK(cvf::test::close(static_cast<double>(slopes[vector][lane]), static_cast<double>(expected.slope),
                           kUlps * kEpsilon, slope_unit));
    CHECK(with_curvature[vector][lane] == values[vector][lane]);
    CHECK(cvf::test::close(static_cast<double>(other_slopes[vector][lane]), static_cast<double>(expected.slope),
                           kUlps * kEpsilon, slope_unit));
    // That of silu goes through zero near x = -2.4 and x = 2.4; the others are products.
    const bool near_zero = activation == Activation::kSilu && std::fabs(x[k]) < 4;
    CHECK(cvf::test::close(static_cast<double>(curvatures[vector][lane]), static_cast<double>(expected.curvature),
                           2 * kUlps * kEpsilon, near_zero ? 0.25 : unit));
  }
}

template <class T>
void test_special(Activation activation) {
  const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    Vec<T> x{}, slope;
    x[lane] = nan;
    Vec<T> alone = x;
    activate<T>(activation, &alone, 1);
    activate_with_slope<T>(activation, &x, &slope, 1);
    const double at_zero = static_cast<double>(truth(activation, 0).value);
    for (int other = 0; other < kLanes<T>; ++other) {
      CHECK(std::isnan(x[other]) == (other == lane));
      CHECK(std::isnan(alone[other]) == (other == lane));
      if (other != lane) CHECK(cvf::test::close(static_cast<double>(x[other]), at_zero, 1e-6));
    }
  }
  Vec<T> x = Vec<T>{} + infinity, slope;
  activate_with_slope<T>(activation, &x, &slope, 1);
  CHECK(activation == Activation::kTanh ? x[0] == T(1) : x[0] == infinity);
  Vec<T> curvature;
  x = Vec<T>{} + nan;
  activate_with_derivatives<T>(activation, &x, &slope, &curvature, 1);
  CHECK(std::isnan(x[0]) &&
        (activation == Activation::kLeakyRelu || (std::isnan(slope[0]) && std::isnan(curvature[0]))));
}

template <class T>
void test_type() {
  for (const Activation a : {Activation::kTanh, Activation::kSilu, Activation::kSoftplus, Activation::kLeakyRelu}) {
    test_values<T>(a);
    test_special<T>(a);
  }
}

}  // namespace

int run_test();  // called by each_isa.cpp

int run_test() {
  test_type<float>();
  test_type<double>();
  return cvf::test::report("activations for " CVF_TEST_ISA);
}
