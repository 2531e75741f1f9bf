// Factorisation, triangular solves and products of lower triangular matrices in register tiles, for both layouts.
//
// Columns are taken in panels of a tile's width, rows from the panel's first column down: what stands above the
// diagonal outside of the tiles that it crosses is neither read nor written.
#pragma once

#include <algorithm>

#include "common/tile.h"

namespace cvf::gaussian_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// Like for_tiles, from the end to the beginning.
template <int kSize, class Body>
CVF_INLINE void for_tiles_backwards(int64_t begin, int64_t end, Body&& body) {
  const int64_t whole = (end - begin) / kSize * kSize;
  if constexpr (kSize > 1) for_tiles_backwards<kSize / 2>(begin + whole, end, body);
  for (int64_t i = begin + whole - kSize; i >= begin; i -= kSize) body(Constant<kSize>{}, i);
}

// Matrices are (d, row) elements of the layout, vectors (row,).
template <class T, class Layout>
class Triangular {
  using V = Vec<T>;
  using Element = typename Layout::Element;
  static constexpr int kColumns = Layout::kColumns;

 public:
  explicit Triangular(int64_t d) : d_(d), row_(Layout::padded_row(d)) {}

  // In place, the upper factor U of U^T U, of a matrix of which only the upper triangle is valid; what stands below it
  // becomes anything. Element (i, j) is at [row i + column j]. NaN from the first pivot on that is not positive.
  void factorise(Element* upper, int64_t row, int64_t column, Element* inverse_diagonal) const {
    for_tiles<Layout::kTileRows>(0, d_, [&](auto rows, int64_t i) {
      const int64_t first = i / kColumns * kColumns;
      for_panels(first, [&](auto vectors, int64_t j) {
        constexpr int kRows = rows, kVectors = vectors;
        Element* tile = upper + j * column;
        V acc[kRows][kVectors];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kVectors; ++c) acc[r][c] = Layout::load(tile + (i + r) * row + c * kColumns * column);
        }
        const Right<T> right{reinterpret_cast<const V*>(tile), row / kColumns, column};
        multiply_tile<-1, T>(acc, Left<Element>{upper + i * column, column, row}, right, 0, i);
        for (int r = 0; r < kRows; ++r) {
          // The rows of the tile that are ready are read from memory, where they stand since the first panel.
          for (int s = 0; s < r; ++s) {
            subtract(acc[r], Layout::spread(upper[(i + s) * row + (i + r) * column]), acc[s]);
          }
          if (j == first) {
            for (int c = 0; c < kVectors; ++c) Layout::store(tile + (i + r) * row + c * kColumns * column, acc[r][c]);
            inverse_diagonal[i + r] = T(1) / Layout::positive_root(upper[(i + r) * (row + column)]);
          }
          for (int c = 0; c < kVectors; ++c) {
            acc[r][c] *= Layout::spread(inverse_diagonal[i + r]);
            Layout::store(tile + (i + r) * row + c * kColumns * column, acc[r][c]);
          }
        }
      });
    });
  }

  void invert_diagonal(const Element* L, Element* out) const {
    for (int64_t i = 0; i < d_; ++i) out[i] = T(1) / L[i * (row_ + 1)];
  }

  // out = L^-1 R for lower triangular L and R; out may be R. Returns the sum of squares.
  Element solve(const Element* L, const Element* inverse_diagonal, const Element* R, Element* out) const {
    V squares{};
    for_panels(0, [&](auto vectors, int64_t j) {
      for_tiles<Layout::kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kVectors = vectors;
        V acc[kRows][kVectors];
        load_tile(R, i, j, acc);
        multiply_tile<-1, T>(acc, Left<Element>{L + i * row_, row_, 1}, right(out, j), j, i);
        for (int r = 0; r < kRows; ++r) {
          for (int s = 0; s < r; ++s) subtract(acc[r], Layout::spread(L[(i + r) * row_ + i + s]), acc[s]);
          for (int c = 0; c < kVectors; ++c) {
            acc[r][c] *= Layout::spread(inverse_diagonal[i + r]);
            squares += acc[r][c] * acc[r][c];
          }
        }
        store_tile(out, i, j, acc);
      });
    });
    return Layout::total(squares);
  }

  // The lower triangle of L^-T R, for lower triangular L and R.
  void solve_transposed(const Element* L, const Element* inverse_diagonal, const Element* R, Element* out) const {
    for_panels(0, [&](auto vectors, int64_t j) {
      for_tiles_backwards<Layout::kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kVectors = vectors;
        V acc[kRows][kVectors];
        load_tile(R, i, j, acc);
        multiply_tile<-1, T>(acc, Left<Element>{L + i, 1, row_}, right(out, j), i + kRows, d_);
        for (int r = kRows - 1; r >= 0; --r) {
          for (int s = r + 1; s < kRows; ++s) subtract(acc[r], Layout::spread(L[(i + s) * row_ + i + r]), acc[s]);
          for (int c = 0; c < kVectors; ++c) acc[r][c] *= Layout::spread(inverse_diagonal[i + r]);
        }
        store_tile(out, i, j, acc);
      });
    });
  }

  // L^-1
  void invert(const Element* L, const Element* inverse_diagonal, Element* out) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < row_; ++j) out[i * row_ + j] = Element{};
      out[i * (row_ + 1)] += T(1);
    }
    solve(L, inverse_diagonal, out, out);
  }

  // In place, x to L^-1 x, and to L^-T x.
  void solve_vector(const Element* L, const Element* inverse_diagonal, Element* x) const {
    for (int64_t i = 0; i < d_; ++i) {
      V sum{};
      for (int64_t j = 0; j < i; j += kColumns)
        sum += before(Layout::load(L + i * row_ + j) * Layout::load(x + j), i, j);
      x[i] = (x[i] - Layout::total(sum)) * inverse_diagonal[i];
    }
  }

  void solve_vector_transposed(const Element* L, const Element* inverse_diagonal, Element* x) const {
    for (int64_t i = d_ - 1; i >= 0; --i) {
      const Element result = x[i] * inverse_diagonal[i];
      const V weight = Layout::spread(result);
      for (int64_t j = 0; j < i; j += kColumns) {
        Layout::store(x + j, Layout::load(x + j) - weight * Layout::load(L + i * row_ + j));
      }
      x[i] = result;
    }
  }

  // acc(i, j) = sum over t of left(i, t) right(t, j), on and below the diagonal; store(acc, i, j) takes each tile.
  // Below the diagonal of a product with a transpose, A B^T, t goes up to j; of A^T B, it begins at i.
  template <class Store>
  void times_transpose(const Element* A, const Right<T>& transposed_b, Store&& store) const {
    for_lower_tiles([&](auto& acc, int64_t i, int64_t j, int64_t next_column) {
      const Right<T> panel{transposed_b.data + j / kColumns * transposed_b.column, transposed_b.step,
                           transposed_b.column};
      multiply_tile<1, T>(acc, Left<Element>{A + i * row_, row_, 1}, panel, 0, next_column);
      store(acc, i, j);
    });
  }

  template <int kSign, int kRows, int kVectors>
  CVF_INLINE void add_transpose_times(V (&acc)[kRows][kVectors], const Element* A, const Element* B, int64_t i,
                                      int64_t j) const {
    multiply_tile<kSign, T>(acc, Left<Element>{A + i, 1, row_}, right(B, j), i, d_);
  }

  // The lower triangle of S B, for a symmetric S with both triangles.
  void symmetric_times(const Element* S, const Element* B, Element* out) const {
    for_lower_tiles([&](auto& acc, int64_t i, int64_t j, int64_t) {
      multiply_tile<1, T>(acc, Left<Element>{S + i * row_, row_, 1}, right(B, j), j, d_);
      store_tile(out, i, j, acc);
    });
  }

  // body(acc, i, j, column behind the tile) with acc = 0, for each tile on and below the diagonal.
  template <class Body>
  CVF_INLINE void for_lower_tiles(Body&& body) const {
    for_panels(0, [&](auto vectors, int64_t j) {
      for_tiles<Layout::kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kVectors = vectors;
        V acc[kRows][kVectors] = {};
        body(acc, i, j, std::min<int64_t>(j + kVectors * kColumns, d_));
      });
    });
  }

  template <int kRows, int kVectors>
  CVF_INLINE void load_tile(const Element* matrix, int64_t i, int64_t j, V (&acc)[kRows][kVectors]) const {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kVectors; ++c) acc[r][c] = Layout::load(matrix + (i + r) * row_ + j + c * kColumns);
    }
  }

  template <int kRows, int kVectors>
  CVF_INLINE void store_tile(Element* matrix, int64_t i, int64_t j, const V (&acc)[kRows][kVectors]) const {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kVectors; ++c) Layout::store(matrix + (i + r) * row_ + j + c * kColumns, acc[r][c]);
    }
  }

 private:
  // body(Constant<vectors>, first column) for panels of columns from `first`, a multiple of kColumns, on.
  template <class Body>
  CVF_INLINE void for_panels(int64_t first, Body&& body) const {
    const int64_t panels = (d_ + kColumns - 1) / kColumns;
    for_tiles<Layout::kTileVectors>(first / kColumns, panels,
                                    [&](auto vectors, int64_t panel) { body(vectors, panel * kColumns); });
  }

  CVF_INLINE Right<T> right(const Element* matrix, int64_t j) const {
    return {reinterpret_cast<const V*>(matrix + j), row_ / kColumns, 1};
  }

  template <int kVectors>
  static CVF_INLINE void subtract(V (&acc)[kVectors], V weight, const V (&other)[kVectors]) {
    for (int c = 0; c < kVectors; ++c) acc[c] -= weight * other[c];
  }

  // Columns j and following of row i, without the diagonal and what is behind it.
  CVF_INLINE V before(V v, int64_t i, int64_t j) const {
    if constexpr (kColumns == 1) {
      return v;
    } else {
      return j + kColumns <= i ? v : keep_first<T>(v, i - j);
    }
  }

  int64_t d_, row_;
};

}  // namespace cvf::gaussian_kl::CVF_ISA
