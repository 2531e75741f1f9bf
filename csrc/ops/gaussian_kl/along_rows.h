// How large matrices stand in memory: one sample at a time, SIMD lanes along its rows.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "common/log_product.h"
#include "common/output.h"
#include "common/tile.h"

namespace cvf::gaussian_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// A unit of work is a sample, an element of its matrices a number. Rows are padded to whole vectors; in the vector
// that holds the diagonal, a lower triangular matrix has zeros behind it, so that tiles need no masks.
template <class T>
class AlongRows {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;

 public:
  using Element = T;
  static constexpr int kColumns = kWidth;  // columns of a matrix in a vector
  // The factorisation needs the diagonal of a tile in one vector.
  static constexpr int kTileRows = std::min(8, kWidth);
  static constexpr int kTileVectors = 1;
  static constexpr int64_t kPadding = 0;

  static int64_t units(int64_t batch) { return batch; }
  // An odd number of vectors, since rows a large power of two apart would compete for the same lines of the cache.
  static int64_t padded_row(int64_t d) {
    const int64_t vectors = (d + kWidth - 1) / kWidth;
    return (vectors + 1 - vectors % 2) * kWidth;
  }

  AlongRows(int64_t batch, int64_t d) : batch_(batch), d_(d), row_(padded_row(d)) {}

  static CVF_INLINE V load(const Element* source) { return *reinterpret_cast<const V*>(source); }
  static CVF_INLINE void store(Element* target, V v) { *reinterpret_cast<V*>(target) = v; }
  static CVF_INLINE V spread(Element number) { return broadcast(number); }
  static CVF_INLINE Element total(V v) { return sum_lanes<T>(v); }
  static CVF_INLINE T sum(Element number) { return number; }

  static CVF_INLINE Element positive_root(Element x) {
    return x > T(0) ? std::sqrt(x) : std::numeric_limits<T>::quiet_NaN();
  }

  Element load_number(const Batched<T>& numbers, int64_t unit) const { return *numbers[unit]; }
  void write_number(Element number, int64_t unit, T* out) const { out[unit] = number; }

  void load_vector(const Batched<T>& vectors, int64_t unit, Element* out) const {
    std::memcpy(out, vectors[unit], static_cast<size_t>(d_) * sizeof(T));
  }

  void write_vector(const Element* vector, int64_t unit, T* out) const {
    std::memcpy(out + unit * d_, vector, static_cast<size_t>(d_) * sizeof(T));
  }

  // The lower triangle, and zeros above it.
  void load_lower(const Batched<T>& matrices, int64_t unit, Element* out) const {
    const T* end = matrices.end(batch_, d_ * d_);
    for (int64_t i = 0; i < d_; ++i) {
      const T* source = matrices[unit] + i * d_;
      int64_t j = 0;
      for (; j <= i; j += kWidth) {
        store(out + i * row_ + j,
              j + kWidth <= i + 1 ? cvf::CVF_ISA::load(source + j) : load_first(source + j, i + 1 - j, end));
      }
      for (; j < row_; j += kWidth) store(out + i * row_ + j, V{});
    }
  }

  // Writes a lower triangle, and zeros above it.
  void write_lower(const Element* matrix, int64_t unit, T* out) const {
    const RowWriter<T> writer(out, batch_ * d_, d_);
    for (int64_t i = 0; i < d_; ++i) {
      T* target = out + (unit * d_ + i) * d_;
      int64_t j = 0;
      for (; j <= i; j += kWidth) writer.write(target, j, keep_first<T>(load(matrix + i * row_ + j), i + 1 - j));
      writer.write_zeros(target, j);
    }
  }

  // Writes a symmetric matrix of which only the lower triangle is valid.
  void write_symmetric(Element* matrix, int64_t unit, T* out) const {
    mirror(matrix);
    const RowWriter<T> writer(out, batch_ * d_, d_);
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < d_; j += kWidth) writer.write(out + (unit * d_ + i) * d_, j, load(matrix + i * row_ + j));
    }
  }

  // To be called when a thread has written its last sample.
  void finish_writing() const { finish_streaming(); }

  void mirror(Element* matrix) const {
    for (int64_t j = 0; j < d_; j += kWidth) {
      for (int64_t k = 0; k <= j; k += kWidth) {
        V block[kWidth];
        for (int r = 0; r < kWidth; ++r) {
          const V row = j + r < d_ ? load(matrix + (j + r) * row_ + k) : V{};
          block[r] = keep_first<T>(row, j + r - k);  // strictly below the diagonal
        }
        transpose<T>(block);
        for (int r = 0; r < kWidth && k + r < d_; ++r) {
          T* target = matrix + (k + r) * row_ + j;
          store(target, j == k ? keep_first<T>(load(target), r + 1) + block[r] : block[r]);
        }
      }
    }
  }

  // The factor of the matrix whose lower triangle is given, by factorise(upper, row, column): `upper` is the
  // transpose, an element of which is at [row i + column j].
  template <class Factorise>
  void load_factor(const Batched<T>& matrices, int64_t unit, Element* out, Element* scratch,
                   Factorise&& factorise) const {
    const T* end = matrices.end(batch_, d_ * d_);
    transpose_lower(scratch,
                    [&](int64_t i, int64_t j) { return load_first(matrices[unit] + i * d_ + j, i + 1 - j, end); });
    factorise(scratch, row_, 1);
    for (int64_t i = 0; i < d_; ++i) std::memset(out + i * row_, 0, static_cast<size_t>(row_) * sizeof(T));
    for (int64_t k = 0; k < d_; k += kWidth) {
      for (int64_t j = k; j < d_; j += kWidth) {
        V block[kWidth];
        for (int r = 0; r < kWidth; ++r) block[r] = k + r < d_ ? load(scratch + (k + r) * row_ + j) : V{};
        transpose<T>(block);
        for (int r = 0; r < kWidth && j + r < d_; ++r) {
          store(out + (j + r) * row_ + k, keep_first<T>(block[r], j + r + 1 - k));
        }
      }
    }
  }

  // The transpose of a lower triangular matrix as the right factor of a product.
  Right<T> transposed(const Element* lower, Element* scratch) const {
    transpose_lower(scratch, [&](int64_t i, int64_t j) { return load(lower + i * row_ + j); });
    return {reinterpret_cast<const V*>(scratch), row_ / kWidth, 1};
  }
  static int64_t transposed_size(int64_t d) { return padded_row(d) * padded_row(d); }

  Element log_det(const Element* lower) const {
    LogProduct<T> product;
    for (int64_t i = 0; i < d_; i += kWidth) {
      V diagonal = V{} + T(1);
      for (int64_t lane = 0; lane < kWidth && i + lane < d_; ++lane) diagonal[lane] = lower[(i + lane) * (row_ + 1)];
      product.multiply(diagonal);
    }
    return static_cast<T>(product.log());
  }

 private:
  // out(j, i) = row(i, j) for j <= i; zero for i < j, up to a whole number of vectors.
  template <class Row>
  void transpose_lower(Element* out, Row&& row) const {
    for (int64_t j = 0; j < d_; j += kWidth) {
      for (int64_t k = 0; k < d_; k += kWidth) {
        V block[kWidth];
        for (int r = 0; r < kWidth; ++r) block[r] = k <= j && j + r < d_ ? row(j + r, k) : V{};
        if (k <= j) transpose<T>(block);
        for (int r = 0; r < kWidth; ++r) store(out + (k + r) * row_ + j, block[r]);
      }
    }
  }

  int64_t batch_, d_, row_;
};

}  // namespace cvf::gaussian_kl::CVF_ISA
