// The register tile that every matrix product of the package is made of.
#pragma once

#include <type_traits>

#include "common/simd.h"

namespace cvf::CVF_ISA {

// The left factor of a product: x(r, t). Its elements are numbers, broadcast to all lanes, or vectors.
template <class X>
struct Left {
  const X* data;
  int64_t row;   // stride of r
  int64_t step;  // stride of t
};

// The right factor: y(t, c), vectors.
template <class T>
struct Right {
  const Vec<T>* data;
  int64_t step;    // stride of t
  int64_t column;  // stride of c
};

// acc(r, c) += sign * sum over t in [begin, end) of x(r, t) y(t, c), held in registers.
template <int kSign, class T, int kRows, int kColumns, class X>
CVF_INLINE void multiply_tile(Vec<T> (&acc)[kRows][kColumns], Left<X> x, Right<T> y, int64_t begin, int64_t end) {
  static_assert(kSign == 1 || kSign == -1);
  for (int64_t t = begin; t < end; ++t) {
    Vec<T> right[kColumns];
    for (int c = 0; c < kColumns; ++c) right[c] = y.data[t * y.step + c * y.column];
    for (int r = 0; r < kRows; ++r) {
      const X element = x.data[r * x.row + t * x.step];
      Vec<T> left;
      if constexpr (std::is_same_v<X, T>) {
        left = broadcast(element);
      } else {
        left = element;
      }
      for (int c = 0; c < kColumns; ++c) {
        if constexpr (kSign == 1) {
          acc[r][c] += left * right[c];
        } else {
          acc[r][c] -= left * right[c];
        }
      }
    }
  }
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Cuts [begin, end) into pieces of kSize, then of half of it, and so on down to 1: body(Constant<size>, start).
template <int kSize, class Body>
CVF_INLINE void for_tiles(int64_t begin, int64_t end, Body&& body) {
  for (; begin + kSize <= end; begin += kSize) body(Constant<kSize>{}, begin);
  if constexpr (kSize > 1) for_tiles<kSize / 2>(begin, end, body);
}

}  // namespace cvf::CVF_ISA
