// Writing the rows of large results.
#pragma once

#include "common/simd.h"

namespace cvf::CVF_ISA {

// How the rows of a contiguous output are written: through the cache, or past it.
template <class T>
class RowWriter {
  static constexpr int kWidth = kLanes<T>;
  // About what stays in the last level of the cache until somebody reads it.
  static constexpr int64_t kStreamedBytes = 16 << 20;

 public:
  // For `rows` rows of `columns` elements at `data`. Rows that do not begin on a vector are not streamed.
  RowWriter(const T* data, int64_t rows, int64_t columns)
      : columns_(columns),
        streamed_(columns % kWidth == 0 && reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0 &&
                  rows * columns * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes) {}

  bool streamed() const { return streamed_; }

  // Elements [column, column + kWidth) of a row, as far as the row goes.
  CVF_INLINE void write(T* row, int64_t column, Vec<T> v) const {
    if (streamed_) {
      stream(row + column, v);
    } else if (column + kWidth <= columns_) {
      store(row + column, v);
    } else {
      store_partial<T>(row + column, v, columns_ - column);
    }
  }

  // Zeros from `column` to the end of the row.
  CVF_INLINE void write_zeros(T* row, int64_t column) const {
    for (; column < columns_; column += kWidth) write(row, column, Vec<T>{});
  }

  void finish() const {
    if (streamed_) finish_streaming();
  }

 private:
  int64_t columns_;
  bool streamed_;
};

}  // namespace cvf::CVF_ISA
