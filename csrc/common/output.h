// Writing the rows of large results.
#pragma once

#include <algorithm>

#include "common/simd.h"

namespace cvf::CVF_ISA {

// Whether an output of so many bytes is written past the cache: what stays in its last level until somebody reads it
// is not.
inline bool worth_streaming(int64_t bytes) { return bytes >= 16 << 20; }

// How the rows of a contiguous output are written: through the cache, or past it.
template <class T>
class RowWriter {
  static constexpr int kWidth = kLanes<T>;

 public:
  // For `rows` rows of `columns` elements at `data`. Rows that do not begin on a vector are not streamed.
  RowWriter(const T* data, int64_t rows, int64_t columns)
      : columns_(columns),
        streamed_(columns % kWidth == 0 && reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0 &&
                  worth_streaming(rows * columns * static_cast<int64_t>(sizeof(T)))) {}

  int64_t columns() const { return columns_; }
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

// Copies elements that are in the cache to where they may begin anywhere in a vector. Call `finish_streaming` after
// the last ones.
template <class T>
void copy_out(const T* in, int64_t count, bool streamed, T* out) {
  constexpr int n = kLanes<T>;
  int64_t k = 0;
  if (streamed) {
    const auto behind = static_cast<int64_t>(reinterpret_cast<uintptr_t>(out) / sizeof(T) % n);
    k = std::min((n - behind) % n, count);
    store_partial<T>(out, load_partial(in, k), k);
    for (; k + n <= count; k += n) stream(out + k, load(in + k));
  }
  for (; k + n <= count; k += n) store(out + k, load(in + k));
  store_partial<T>(out + k, load_partial(in + k, count - k), count - k);
}

}  // namespace cvf::CVF_ISA
