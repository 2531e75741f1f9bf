// propagate for one matrix at a time: lanes hold columns of the right-hand sides.
//
// A panel of columns depends on no other panel, so threads can share a matrix. A is read in place, since a
// substitution never touches what is on or above its diagonal.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/output.h"
#include "common/parallel.h"
#include "common/triangular_solve.h"
#include "ops/propagate/terms.h"

namespace cvf::propagate::CVF_ISA {

// The panels of a matrix that are dealt to one of `threads` threads.
struct Panels {
  int64_t first = 0;
  int threads = 1;

  int64_t next(int64_t panel) const { return next_dealt(panel, threads); }
};

template <class T>
struct Tiles {
  static constexpr int kWidth = kLanes<T>;
  // A panel is a cache line wide: past the cache, a part of a line that is written costs as much as all of it.
  static constexpr int kColumns = kCacheLine / kVectorBytes;
  static constexpr int kPanel = kColumns * kWidth;
  static constexpr int kRows = 8 / kColumns;

  // Elements between the rows of a padded (d, d) matrix: an odd number of vectors, since rows a large power of two
  // apart would compete for the same lines of the cache.
  static int64_t padded_row(int64_t d) {
    const int64_t vectors = round_up(d, kPanel) / kWidth;
    return (vectors + 1 - vectors % 2) * kWidth;
  }
};

template <class T>
class TileForward {
  using V = Vec<T>;
  static constexpr int kWidth = Tiles<T>::kWidth;
  static constexpr int kColumns = Tiles<T>::kColumns;
  static constexpr int kPanel = Tiles<T>::kPanel;
  static constexpr int kRows = Tiles<T>::kRows;

 public:
  // For `matrices` matrices (d, d) in all, which follow each other at `out`.
  TileForward(const Sigma<T>& sigma, int64_t d, const T* out, int64_t matrices)
      : sigma_(sigma), d_(d), writer_(out, matrices * d, d), panel_(round_up(d, kWidth) * kColumns) {}

  // S = W^-1 diag(sigma) of one matrix.
  void scale_tril(const T* jac, T* out, Panels panels = {}) {
    for (int64_t p = panels.first, k; (k = p * kPanel) < d_; p = panels.next(p)) {
      for (int64_t i = k * kColumns; i < d_ * kColumns; ++i) panel_[i] = V{};
      T* diagonal = reinterpret_cast<T*>(&panel_[k * kColumns]);
      for (int64_t c = 0; c < std::min<int64_t>(kPanel, d_ - k); ++c) diagonal[c * (kPanel + 1)] = sigma_[k + c];
      solve_lower<T, kRows, kColumns>(Left<T>{jac, d_, 1}, Solution<T>{panel_.data(), kColumns, 1}, k, d_);
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t c = 0, j = k; c < kColumns && j < d_; ++c, j += kWidth) {
          writer_.write(out + i * d_, j, i < k ? V{} : keep_first<T>(panel_[i * kColumns + c], i + 1 - j));
        }
      }
    }
  }

  // loc = W^-1 b of one sample. Nothing is read from A behind `end`.
  void loc(const T* jac, const T* end, const T* offset, T* out) {
    T* x = reinterpret_cast<T*>(panel_.data());
    const int64_t padded = round_up(d_, kWidth);
    for (int64_t i = 0; i < padded; ++i) x[i] = T(0);
    for (int64_t i = 0; i < d_; i += kWidth) {
      const int64_t count = std::min<int64_t>(kWidth, d_ - i);
      V rows[kWidth] = {};
      for (int64_t r = 0; r < count; ++r) {
        const T* row = jac + (i + r) * d_;
        for (int64_t j = 0; j < i; j += kWidth) rows[r] += load(row + j) * panel_[j / kWidth];
      }
      // One column of the block on the diagonal after the other; an infinite element is none of those before it.
      V sum = load_first(offset + i, count, offset + d_) + sum_rows<T>(rows);
      V block[kWidth];
      for (int64_t r = 0; r < kWidth; ++r) {
        block[r] = r < count ? load_first(jac + (i + r) * d_ + i, r, end) : V{};
      }
      transpose<T>(block);
      for (int64_t c = 0; c < count; ++c) sum += drop_first<T>(block[c] * sum[c], c + 1);
      panel_[i / kWidth] = keep_first<T>(sum, count);
    }
    std::memcpy(out, x, static_cast<size_t>(d_) * sizeof(T));
  }

  // To be called after the last matrix.
  void finish() const { writer_.finish(); }

 private:
  const Sigma<T>& sigma_;
  const int64_t d_;
  const RowWriter<T> writer_;
  Scratch<V> panel_;  // (d, columns): a panel of S; or loc, of which it holds a vector in each
};

template <class T>
class TileBackward {
  using V = Vec<T>;
  static constexpr int kWidth = Tiles<T>::kWidth;
  static constexpr int kColumns = Tiles<T>::kColumns;
  static constexpr int kPanel = Tiles<T>::kPanel;
  static constexpr int kRows = Tiles<T>::kRows;

 public:
  // Gradients of `matrices` matrices (d, d) in all follow each other at `out`, which may be null.
  TileBackward(const Sigma<T>& sigma, int64_t d, const T* out, int64_t matrices)
      : sigma_(sigma),
        d_(d),
        row_(Tiles<T>::padded_row(d)),
        writer_(out, matrices * d, d),
        adjoint_(d * row_),
        transposed_(row_ * row_),
        loc_(row_),
        loc_adjoint_(row_) {
    for (int64_t j = 0; j < row_; ++j) loc_[j] = T(0);
  }

  // Y = W^-T G, on and below the diagonal. Nothing is read from G behind `end`.
  void factor_adjoint(const T* jac, const T* upstream, const T* end, Panels panels = {}) {
    for (int64_t p = panels.first, k; (k = p * kPanel) < d_; p = panels.next(p)) {
      for (int64_t i = k; i < d_; ++i) {
        for (int64_t c = 0, j = k; c < kColumns; ++c, j += kWidth) {
          const T* source = upstream + i * d_ + j;
          const int64_t count = i + 1 - j;
          const V g = count >= kWidth ? load(source) : count > 0 ? load_first(source, count, end) : V{};
          store(&adjoint_[i * row_ + j], g);
        }
      }
      const Solution<T> solution{vectors(adjoint_, k), row_ / kWidth, 1};
      solve_transposed<T, kRows, kColumns>(Left<T>{jac, d_, 1}, solution, k, d_);
    }
  }

  // sigma_i Y_ii, added to `sum` (d,).
  void add_log_sigma_gradient(double* sum) const {
    for (int64_t i = 0; i < d_; ++i) sum[i] += static_cast<double>(sigma_[i] * adjoint_[i * (row_ + 1)]);
  }

  // y = W^-T g of one sample. Nothing is read from A behind `end`.
  const T* loc_adjoint(const T* jac, const T* end, const T* upstream) {
    T* y = loc_adjoint_.data();
    std::memcpy(y, upstream, static_cast<size_t>(d_) * sizeof(T));
    for (int64_t j = d_; j < row_; ++j) y[j] = T(0);
    for (int64_t i = d_ - 1; i > 0; --i) {
      const T* row = jac + i * d_;
      const V weight = broadcast(y[i]);
      int64_t j = 0;
      for (; j + kWidth <= i; j += kWidth) store(y + j, load(y + j) + weight * load(row + j));
      if (j < i) store(y + j, keep_first<T>(weight * load_first(row + j, i - j, end), i - j) + load(y + j));
    }
    return y;
  }

  // S^T, zero below the diagonal as far as it is read. Nothing is read from S behind `end`.
  void transpose_factor(const T* scale_tril, const T* end) {
    for (int64_t j = 0; j < d_; j += kWidth) {
      for (int64_t k = 0; k <= j; k += kWidth) {
        V block[kWidth];
        for (int r = 0; r < kWidth; ++r) {
          const T* source = scale_tril + (j + r) * d_ + k;
          const int64_t count = j + r < d_ ? j + r + 1 - k : 0;
          block[r] = count >= kWidth ? load(source) : count > 0 ? load_first(source, count, end) : V{};
        }
        transpose<T>(block);
        for (int r = 0; r < kWidth; ++r) store(&transposed_[(k + r) * row_ + j], block[r]);
      }
      for (int64_t k = j + kWidth; k % kPanel != 0 && k < d_; ++k) store(&transposed_[k * row_ + j], V{});
    }
  }

  // dA = Y S^T + y loc^T below the diagonal; the last term, with y as `loc_adjoint` has left it, only if `loc` is not
  // null.
  void jac_gradient(const T* loc, T* out, Panels panels = {}) {
    if (loc) std::memcpy(loc_.data(), loc, static_cast<size_t>(d_) * sizeof(T));
    for (int64_t p = panels.first, j; (j = p * kPanel) < d_; p = panels.next(p)) {
      const Right<T> right{vectors(transposed_, j), row_ / kWidth, 1};
      const auto write = [&](int64_t i, const V(&values)[kColumns]) {
        for (int64_t c = 0, k = j; c < kColumns && k < d_; ++c, k += kWidth) {
          writer_.write(out + i * d_, k, keep_first<T>(values[c], i - k));
        }
      };
      for (int64_t i = 0; i < j; ++i) write(i, {});
      for_tiles<kRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int n = rows;
        V acc[n][kColumns] = {};
        if (loc) {
          for (int r = 0; r < n; ++r) {
            for (int c = 0; c < kColumns; ++c) acc[r][c] = loc_adjoint_[i + r] * load(&loc_[j + c * kWidth]);
          }
        }
        multiply_tile<1, T>(acc, Left<T>{&adjoint_[i * row_], row_, 1}, right, 0, std::min(j + kPanel, d_));
        for (int r = 0; r < n; ++r) write(i + r, acc[r]);
      });
    }
  }

  // To be called after the last matrix.
  void finish() const { writer_.finish(); }

 private:
  // The vectors of a padded matrix from column k of its first row on.
  V* vectors(Scratch<T>& matrix, int64_t k) const { return reinterpret_cast<V*>(matrix.data() + k); }

  const Sigma<T>& sigma_;
  const int64_t d_;
  const int64_t row_;  // elements between rows of the buffers
  const RowWriter<T> writer_;
  Scratch<T> adjoint_;      // (d, row): Y; what stands above the diagonal does not count
  Scratch<T> transposed_;   // (row, row): S^T
  Scratch<T> loc_;          // (row,), padded with zeros
  Scratch<T> loc_adjoint_;  // (row,): y
};

}  // namespace cvf::propagate::CVF_ISA
