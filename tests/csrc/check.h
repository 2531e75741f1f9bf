// What the C++ tests need: a check that counts failures and says where.
#pragma once

#include <cmath>
#include <cstdio>

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

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}

}  // namespace cvf::test

#define CHECK(condition) cvf::test::check((condition), #condition, __FILE__, __LINE__)
