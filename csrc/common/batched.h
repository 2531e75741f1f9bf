// Views of tensors whose first dimension is the batch.
#pragma once

#include <cstdint>

namespace cvf {

// An input with one row of elements for each sample, without gaps inside a row. The stride counts elements; with
// stride 0 every sample has the same row.
template <class T>
struct Batched {
  const T* data = nullptr;
  int64_t stride = 0;

  constexpr const T* operator[](int64_t sample) const { return data + sample * stride; }
  constexpr explicit operator bool() const { return data != nullptr; }

  // The end of the last row of a batch, for rows of `length` elements.
  const T* end(int64_t batch, int64_t length) const { return data + (batch - 1) * stride + length; }
};

}  // namespace cvf
