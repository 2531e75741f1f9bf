// Substitution with a unit lower triangular matrix W = I - A, in register tiles.
//
// Only what is below the diagonal of A is read. Its elements are numbers, the same for all lanes, or vectors.
#pragma once

#include "common/tile.h"

namespace cvf::CVF_ISA {

// The right-hand sides x(i, c), which become the solution.
template <class T>
struct Solution {
  Vec<T>* data;
  int64_t row;     // stride of i
  int64_t column;  // stride of c

  Vec<T>& operator()(int64_t i, int64_t c) const { return data[i * row + c * column]; }
  Right<T> as_factor() const { return {data, row, column}; }
};

namespace detail {

// acc(r, c) += x acc(s, c)
template <class T, int kColumns, class X>
CVF_INLINE void add_row(Vec<T> (&to)[kColumns], X x, const Vec<T> (&from)[kColumns]) {
  for (int c = 0; c < kColumns; ++c) to[c] += x * from[c];
}

}  // namespace detail

// x := W^-1 x for rows [begin, end) of W and x: x_i += sum_{begin <= j < i} A(i, j) x_j, from the first row on.
template <class T, int kRows, int kColumns, class X>
CVF_INLINE void solve_lower(Left<X> a, Solution<T> x, int64_t begin, int64_t end) {
  for_tiles<kRows>(begin, end, [&](auto rows, int64_t i) {
    constexpr int n = rows;
    Vec<T> acc[n][kColumns];
    for (int r = 0; r < n; ++r) {
      for (int c = 0; c < kColumns; ++c) acc[r][c] = x(i + r, c);
    }
    multiply_tile<1, T>(acc, Left<X>{a.data + i * a.row, a.row, a.step}, x.as_factor(), begin, i);
    for (int s = 0; s < n; ++s) {
      for (int r = s + 1; r < n; ++r) {
        detail::add_row<T>(acc[r], a.data[(i + r) * a.row + (i + s) * a.step], acc[s]);
      }
      for (int c = 0; c < kColumns; ++c) x(i + s, c) = acc[s][c];
    }
  });
}

// x := W^-T x for rows [begin, end) of W and x: x_i += sum_{i < j < end} A(j, i) x_j, from the last row on.
template <class T, int kRows, int kColumns, class X>
CVF_INLINE void solve_transposed(Left<X> a, Solution<T> x, int64_t begin, int64_t end) {
  for_tiles<kRows>(0, end - begin, [&](auto rows, int64_t done) {
    constexpr int n = rows;
    const int64_t i = end - done - n;
    Vec<T> acc[n][kColumns];
    for (int r = 0; r < n; ++r) {
      for (int c = 0; c < kColumns; ++c) acc[r][c] = x(i + r, c);
    }
    multiply_tile<1, T>(acc, Left<X>{a.data + i * a.step, a.step, a.row}, x.as_factor(), i + n, end);
    for (int s = n - 1; s >= 0; --s) {
      for (int r = 0; r < s; ++r) {
        detail::add_row<T>(acc[r], a.data[(i + s) * a.row + (i + r) * a.step], acc[s]);
      }
      for (int c = 0; c < kColumns; ++c) x(i + s, c) = acc[s][c];
    }
  });
}

}  // namespace cvf::CVF_ISA
