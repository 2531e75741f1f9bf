// How small and medium matrices stand in memory: samples across SIMD lanes, so that no lane idles however small d is.
#pragma once

#include <limits>

#include "common/lanes.h"
#include "common/log_product.h"
#include "common/tile.h"

namespace cvf::gaussian_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// A unit of work is a group of samples. An element of its matrices is a vector, with a number of each sample, and so
// is what is a number for one sample.
template <class T>
class AcrossSamples {
  using V = Vec<T>;

 public:
  using Element = V;
  static constexpr int kColumns = 1;  // columns of a matrix in a vector
  static constexpr int kTileRows = kManyRegisters ? 4 : 2;
  static constexpr int kTileVectors = 4;
  static constexpr int64_t kPadding = kLanePadding<T>;  // behind the rows of a matrix

  static int64_t units(int64_t batch) { return (batch + kLanes<T> - 1) / kLanes<T>; }
  // Where a row is a vector or longer, an odd number, since rows a large power of two apart would compete for the same
  // lines of the cache. Shorter ones stand without a gap, as they do in the tensors.
  static int64_t padded_row(int64_t d) { return d < kLanes<T> ? d : d | 1; }

  AcrossSamples(int64_t batch, int64_t d) : batch_(batch), d_(d), row_(padded_row(d)) {}

  static CVF_INLINE V load(const Element* source) { return *source; }
  static CVF_INLINE void store(Element* target, V v) { *target = v; }
  static CVF_INLINE V spread(Element number) { return number; }
  static CVF_INLINE Element total(V v) { return v; }
  static CVF_INLINE T sum(Element number) { return sum_lanes<T>(number); }  // over the samples

  static CVF_INLINE Element positive_root(Element x) {
    const Element root = square_root<T>(x);
    return x > T(0) ? root : Element{} + std::numeric_limits<T>::quiet_NaN();
  }

  // Lanes without a sample get 0, so that they add nothing to a sum.
  Element load_number(const Batched<T>& numbers, int64_t unit) const {
    Element result{};
    const LaneGroup samples = group(unit);
    for (int64_t lane = 0; lane < samples.count; ++lane) result[lane] = *numbers[samples.first + lane];
    return result;
  }

  void write_number(Element number, int64_t unit, T* out) const {
    const LaneGroup samples = group(unit);
    store_partial<T>(out + samples.first, number, samples.count);
  }

  void load_vector(const Batched<T>& vectors, int64_t unit, Element* out) const {
    gather_lanes(vectors, group(unit), d_, vectors.end(batch_, d_), out);
  }

  void write_vector(const Element* vector, int64_t unit, T* out) const {
    scatter_lanes<T>(vector, group(unit), d_, out);
  }

  // The lower triangle, and zeros above it.
  void load_lower(const Batched<T>& matrices, int64_t unit, Element* out) const {
    gather(matrices, unit, out);
    clear_upper(out);
  }

  // Writes a lower triangle, and zeros above it.
  void write_lower(Element* matrix, int64_t unit, T* out) const {
    if (d_ < kLanes<T>) {
      clear_upper(matrix);
      scatter_lanes<T>(matrix, group(unit), d_ * d_, out);
    } else {
      scatter_rows(matrix, unit, out, [](int64_t i) { return i + 1; });
    }
  }

  // Writes a symmetric matrix of which only the lower triangle is valid.
  void write_symmetric(Element* matrix, int64_t unit, T* out) const {
    mirror(matrix);
    if (d_ < kLanes<T>) {
      scatter_lanes<T>(matrix, group(unit), d_ * d_, out);
    } else {
      scatter_rows(matrix, unit, out, [&](int64_t) { return d_; });
    }
  }

  // To be called when a thread has written its last sample.
  void finish_writing() const { finish_streaming(); }

  void mirror(Element* matrix) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = i + 1; j < d_; ++j) matrix[i * row_ + j] = matrix[j * row_ + i];
    }
  }

  // The factor of the matrices whose lower triangles are given, by factorise(upper, row, column): `upper` is the
  // transpose, an element of which is at [row i + column j].
  template <class Factorise>
  void load_factor(const Batched<T>& matrices, int64_t unit, Element* out, Element*, Factorise&& factorise) const {
    gather(matrices, unit, out);
    factorise(out, 1, row_);
    clear_upper(out);
  }

  // The transpose of a lower triangular matrix as the right factor of a product.
  Right<T> transposed(const Element* lower, Element*) const { return {lower, 1, row_}; }
  static int64_t transposed_size(int64_t) { return 0; }

  Element log_det(const Element* lower) const {
    LogProduct<T> product;
    for (int64_t i = 0; i < d_; ++i) product.multiply(lower[i * (row_ + 1)]);
    Element result;
    for (int lane = 0; lane < kLanes<T>; ++lane) result[lane] = static_cast<T>(product.log(lane));
    return result;
  }

 private:
  LaneGroup group(int64_t unit) const {
    const int64_t first = unit * kLanes<T>;
    return {first, std::min<int64_t>(kLanes<T>, batch_ - first)};
  }

  void clear_upper(Element* matrix) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = i + 1; j < d_; ++j) matrix[i * row_ + j] = Element{};
    }
  }

  // At least the lower triangle.
  void gather(const Batched<T>& matrices, int64_t unit, Element* out) const {
    const T* end = matrices.end(batch_, d_ * d_);
    if (d_ < kLanes<T>) {
      gather_lanes(matrices, group(unit), d_ * d_, end, out);
    } else {
      gather_triangle(matrices, group(unit), d_, 1, end, row_, out);
    }
  }

  // The first length(i) elements of each row i, and zeros behind them.
  template <class Length>
  void scatter_rows(const Element* matrix, int64_t unit, T* out, Length&& length) const {
    const RowWriter<T> writer(out, batch_ * d_, d_);
    for (int64_t i = 0; i < d_; ++i) scatter_row(matrix + i * row_, length(i), group(unit), d_, i, writer, out);
  }

  int64_t batch_, d_, row_;
};

}  // namespace cvf::gaussian_kl::CVF_ISA
