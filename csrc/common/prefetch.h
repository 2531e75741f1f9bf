// Asking for memory before it is needed.
#pragma once

#include <cstdint>

#include "common/simd.h"
#include "common/triangle.h"

namespace cvf::CVF_ISA {

// The lower triangles of two matrices (d, d), a few cache lines at a time between other work: asked for all at once,
// they would have to wait for each other, and the work for them.
template <class T>
class TrianglePrefetch {
 public:
  struct Matrix {
    const T* data;  // or null
    TriangleLayout layout;
  };

  void start(const Matrix& first, const Matrix& second) {
    first_ = first;
    second_ = second;
    row_ = column_ = 0;
  }

  CVF_INLINE void advance(int lines) {
    for (; lines > 0 && row_ < first_.layout.d; --lines) {
      if (first_.data) __builtin_prefetch(first_.data + first_.layout.row(row_) + column_, 0, 2);
      if (second_.data) __builtin_prefetch(second_.data + second_.layout.row(row_) + column_, 0, 2);
      column_ += kLine;
      if (column_ > row_) {
        ++row_;
        column_ = 0;
      }
    }
  }

 private:
  static constexpr int64_t kLine = kCacheLine / sizeof(T);
  Matrix first_{}, second_{};
  int64_t row_ = 0, column_ = 0;
};

}  // namespace cvf::CVF_ISA
