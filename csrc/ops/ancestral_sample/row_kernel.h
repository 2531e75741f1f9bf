// ancestral_sample for a jac of its own for each sample: a group of samples across SIMD lanes, one row of their
// matrices after the other.
//
// Each number of a matrix is used once, so matrices are transposed into vectors chunk by chunk on the way in, the
// gradients row by row on the way out, and no (d, d) buffer exists.
#pragma once

#include <algorithm>

#include "common/lanes.h"
#include "ops/ancestral_sample/intervention.h"

namespace cvf::ancestral_sample::CVF_ISA {

// One chunk of a row of a matrix in vectors: chunk[c] holds element (i, j + c) of each sample, zero from `length` on.
//
// What lies `ahead` is asked for, into the second level of the cache: the rows of as many matrices as there are lanes
// are more than the hardware's prefetcher follows.
template <class T>
CVF_INLINE void load_chunk(const Batched<T>& matrices, LaneGroup group, int64_t at, int64_t length, const T* end,
                           int64_t ahead, Vec<T> (&chunk)[kLanes<T>]) {
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const T* source = matrices[group.sample(lane)] + at;
    __builtin_prefetch(source + ahead, 0, 2);
    chunk[lane] = length >= kLanes<T> ? load(source) : load_first(source, length, end);
  }
  transpose<T>(chunk);
}

inline constexpr int64_t kRowsAhead = 2;

template <class T, bool kQuadratic>
class RowForward {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;

 public:
  explicit RowForward(const Forward<T>& args)
      : args_(args),
        equations_(args.equations),
        d_(equations_.d),
        own_(equations_),
        z_(d_ + kWidth),
        square_(kQuadratic ? d_ + kWidth : 0),
        values_(d_) {}

  void run(LaneGroup group) {
    const int64_t batch = equations_.batch, square = d_ * d_;
    own_.load(group);
    gather_lanes(args_.noise, group, d_, args_.noise.end(batch, d_), z_.data());
    gather_lanes(args_.do_values, group, d_, args_.do_values.end(batch, d_), values_.data());
    for (int64_t i = 0; i < d_; ++i) {
      V sum[2] = {z_[i] + args_.offset[i], V{}};
      for (int64_t j = 0; j < i; j += kWidth) {
        add_products(equations_.jac, equations_.jac.end(batch, square), group, i, j, z_, sum);
        if constexpr (kQuadratic) {
          add_products(equations_.quadratic, equations_.quadratic.end(batch, square), group, i, j, square_, sum);
        }
      }
      z_[i] = select<T>(own_[i], sum[0] + sum[1], values_[i]);
      if constexpr (kQuadratic) square_[i] = z_[i] * z_[i];
    }
    scatter_lanes<T>(z_.data(), group, d_, args_.z);
  }

 private:
  CVF_INLINE void add_products(const Batched<T>& matrices, const T* end, LaneGroup group, int64_t i, int64_t j,
                               const Scratch<V>& parents, V (&sum)[2]) const {
    V chunk[kWidth];
    load_chunk(matrices, group, i * d_ + j, i - j, end, kRowsAhead * d_, chunk);
    const int64_t count = std::min<int64_t>(kWidth, i - j);
    for (int64_t c = 0; c < count; ++c) sum[c % 2] += chunk[c] * parents[j + c];
  }

  const Forward<T>& args_;
  const Equations<T>& equations_;
  const int64_t d_;
  OwnEquation<T> own_;
  Scratch<V> z_, square_, values_;  // (d,): the noise, then z; z^2; the values of the replaced nodes
};

template <class T, bool kQuadratic>
class RowBackward {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;

 public:
  explicit RowBackward(const Backward<T>& args)
      : args_(args),
        equations_(args.equations),
        d_(equations_.d),
        jac_writer_(args.grad_jac, equations_.batch * d_, d_),
        quadratic_writer_(args.grad_quadratic, equations_.batch * d_, d_),
        own_(equations_),
        z_(d_),
        adjoint_(d_),
        slope_(kQuadratic ? d_ : 0),
        values_(d_),
        row_(d_ + kLanePadding<T>) {}

  // `offset_sum` and `values_sum` (d,) take gradients that the batch shares, if they are not null.
  void run(LaneGroup group, double* offset_sum, double* values_sum) {
    const int64_t batch = equations_.batch, square = d_ * d_;
    own_.load(group);
    gather_lanes(args_.upstream, group, d_, args_.upstream.end(batch, d_), adjoint_.data());
    gather_lanes(args_.z, group, d_, args_.z.end(batch, d_), z_.data());
    if constexpr (kQuadratic) {
      for (int64_t i = 0; i < d_; ++i) slope_[i] = V{};
    }
    for (int64_t i = d_ - 1; i >= 0; --i) {
      V total = adjoint_[i];
      if constexpr (kQuadratic) total += T(2) * z_[i] * slope_[i];
      adjoint_[i] = where<T>(own_[i], total);
      values_[i] = where<T>(~own_[i], total);
      pass_on(equations_.jac, equations_.jac.end(batch, square), group, i, adjoint_);
      if (args_.grad_jac) write_row(jac_writer_, args_.grad_jac, group, i, [](V z) { return z; });
      if constexpr (kQuadratic) {
        pass_on(equations_.quadratic, equations_.quadratic.end(batch, square), group, i, slope_);
        if (args_.grad_quadratic)
          write_row(quadratic_writer_, args_.grad_quadratic, group, i, [](V z) { return z * z; });
      }
    }
    if (args_.grad_noise) scatter_lanes<T>(adjoint_.data(), group, d_, args_.grad_noise);
    if (offset_sum) add_lanes(adjoint_, group, offset_sum);
    if (values_sum) {
      add_lanes(values_, group, values_sum);
    } else if (args_.grad_values) {
      scatter_lanes<T>(values_.data(), group, d_, args_.grad_values);
    }
  }

  // To be called after the last group.
  void finish() const {
    jac_writer_.finish();
    quadratic_writer_.finish();
  }

 private:
  // to_j += (i, j) adjoint_i for the parents j < i.
  CVF_INLINE void pass_on(const Batched<T>& matrices, const T* end, LaneGroup group, int64_t i, Scratch<V>& to) {
    const V adjoint = adjoint_[i];
    for (int64_t j = 0; j < i; j += kWidth) {
      V chunk[kWidth];
      load_chunk(matrices, group, i * d_ + j, i - j, end, -kRowsAhead * d_, chunk);
      const int64_t count = std::min<int64_t>(kWidth, i - j);
      for (int64_t c = 0; c < count; ++c) to[j + c] += chunk[c] * adjoint;
    }
  }

  // Row i of the gradient of a matrix: adjoint_i f(z_j) below the diagonal, zero elsewhere.
  template <class Function>
  CVF_INLINE void write_row(const RowWriter<T>& writer, T* out, LaneGroup group, int64_t i, Function f) {
    const V adjoint = adjoint_[i];
    for (int64_t j = 0; j < i; ++j) row_[j] = adjoint * f(z_[j]);
    scatter_row(row_.data(), i, group, d_, i, writer, out);
  }

  void add_lanes(const Scratch<V>& vectors, LaneGroup group, double* sum) const {
    for (int64_t i = 0; i < d_; ++i) {
      sum[i] += static_cast<double>(sum_lanes<T>(keep_first<T>(vectors[i], group.count)));
    }
  }

  const Backward<T>& args_;
  const Equations<T>& equations_;
  const int64_t d_;
  const RowWriter<T> jac_writer_, quadratic_writer_;
  OwnEquation<T> own_;
  Scratch<V> z_, adjoint_, slope_, values_;  // (d,) each
  Scratch<V> row_;                           // of a gradient that is being written
};

}  // namespace cvf::ancestral_sample::CVF_ISA
