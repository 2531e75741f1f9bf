// How lower triangular matrices lie in memory.
#pragma once

#include <cstdint>

namespace cvf {

// The rows of a lower triangular matrix (d, d), row-major: dense, or packed, one row of i + 1 elements behind the
// other.
struct TriangleLayout {
  int64_t d = 0;
  bool packed = false;

  // Where row i begins.
  int64_t row(int64_t i) const { return packed ? i * (i + 1) / 2 : i * d; }
  // Elements of a matrix.
  int64_t size() const { return row(d); }
};

}  // namespace cvf
