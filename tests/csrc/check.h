// What the C++ tests need: a check that counts failures and says where.
#pragma once

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

namespace cvf::test {

inline int failures = 0;

inline void check(bool condition, const char* what, const char* file, int line) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

// Equal up to `tolerance` times the larger of |expected| and `unit`; NaN equals NaN.
inline bool close(double actual, double expected, double tolerance, double unit = 1.0) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  return std::abs(actual - expected) <= tolerance * std::fmax(std::abs(expected), unit);
}

// Of the combinations of some choices, bits of `flags`, half, in which any fewer of them still take all their values.
// For shapes that take long, whose kernels have met all combinations at others.
inline bool even(int flags) { return std::popcount(static_cast<unsigned>(flags)) % 2 == 0; }

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}

}  // namespace cvf::test

#define CHECK(condition) cvf::test::check((condition), #condition, __FILE__, __LINE__)

namespace cvf::test {

// Equal up to rounding, of so many units in the last place of T, relative to the largest entry.
template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth, double units) {
  CHECK(actual.size() == truth.size());
  double largest = 1;
  for (const double value : truth) largest = std::fmax(largest, std::abs(value));
  const double tolerance = units * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (size_t k = 0; k < truth.size(); ++k) {
    CHECK(close(static_cast<double>(actual[k]), truth[k], tolerance, largest));
  }
}

}  // namespace cvf::test
