// ancestral_sample for parameters that the batch shares: samples across SIMD lanes, numbers of A and Q broadcast.
#pragma once

#include <array>

#include "common/lane_blocks.h"
#include "ops/ancestral_sample/intervention.h"

namespace cvf::ancestral_sample::CVF_ISA {

// What both directions need: a block of samples at a time, in tiles of rows, and the masks of its groups.
template <class T>
class SharedKernel {
 protected:
  using V = Vec<T>;
  using Blocks = LaneBlocks<T>;
  static constexpr int kGroups = Blocks::kGroups;

  explicit SharedKernel(const Equations<T>& equations)
      : equations_(equations), d_(equations.d), own_{OwnEquation<T>(equations), OwnEquation<T>(equations)} {}

  void load_masks(int64_t first) {
    for (int g = 0; g < kGroups; ++g) own_[static_cast<size_t>(g)].load(group(first, g));
  }

  LaneGroup group(int64_t first, int g) const { return Blocks::group(first, equations_.batch, g); }
  LaneMask<T> own(int64_t i, int g) const { return own_[static_cast<size_t>(g)][i]; }

  const Equations<T>& equations_;
  const int64_t d_;

 private:
  std::array<OwnEquation<T>, kGroups> own_;
};

template <class T, bool kQuadratic>
class SharedForward : SharedKernel<T> {
  using Base = SharedKernel<T>;
  using Base::d_, Base::equations_, Base::kGroups;
  using typename Base::Blocks;
  using typename Base::V;

 public:
  explicit SharedForward(const Forward<T>& args)
      : Base(args.equations),
        args_(args),
        z_(kGroups * d_),
        square_(kQuadratic ? kGroups * d_ : 0),
        values_(kGroups * d_) {}

  void run(int64_t block) {
    const int64_t first = block * Blocks::kSamples, batch = equations_.batch;
    Base::load_masks(first);
    Blocks::gather(args_.noise, first, batch, d_, z_.data());
    Blocks::gather(args_.do_values, first, batch, d_, values_.data());
    for_tiles<Blocks::kRows>(0, d_, [&](auto rows, int64_t i) { tile<rows>(i); });
    Blocks::scatter(z_.data(), first, batch, d_, args_.z);
  }

 private:
  // Nodes [i, i + kRows): first what comes from the nodes before them, then one after the other.
  template <int kRows>
  CVF_INLINE void tile(int64_t i) {
    const T* jac = equations_.jac.data + i * d_;
    const T* quadratic = kQuadratic ? equations_.quadratic.data + i * d_ : nullptr;
    V acc[kRows][kGroups];
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) acc[r][g] = z_[g * d_ + i + r] + args_.offset[i + r];
    }
    multiply_tile<1, T>(acc, Left<T>{jac, d_, 1}, Right<T>{z_.data(), 1, d_}, 0, i);
    if constexpr (kQuadratic) {
      multiply_tile<1, T>(acc, Left<T>{quadratic, d_, 1}, Right<T>{square_.data(), 1, d_}, 0, i);
    }
    for (int s = 0; s < kRows; ++s) {
      for (int g = 0; g < kGroups; ++g) {
        const int64_t k = g * d_ + i + s;
        const V z = select<T>(Base::own(i + s, g), acc[s][g], values_[k]);
        z_[k] = z;
        if constexpr (kQuadratic) square_[k] = z * z;
        for (int r = s + 1; r < kRows; ++r) {
          acc[r][g] += jac[r * d_ + i + s] * z;
          if constexpr (kQuadratic) acc[r][g] += quadratic[r * d_ + i + s] * (z * z);
        }
      }
    }
  }

  const Forward<T>& args_;
  Scratch<V> z_, square_, values_;  // (groups, d): the noise, then z; z^2; the values of the replaced nodes
};

template <class T, bool kQuadratic>
class SharedBackward : SharedKernel<T> {
  using Base = SharedKernel<T>;
  using Base::d_, Base::equations_, Base::kGroups;
  using typename Base::Blocks;
  using typename Base::V;

 public:
  explicit SharedBackward(const Backward<T>& args)
      : Base(args.equations),
        args_(args),
        adjoint_(kGroups * d_),
        values_(kGroups * d_),
        z_(kQuadratic ? kGroups * d_ : 0),
        jac_sum_(args.grad_jac, d_),
        quadratic_sum_(args.grad_quadratic, d_) {}

  // `offset_sum` and `values_sum` (d,) take gradients that the batch shares, if they are not null.
  void run(int64_t block, double* offset_sum, double* values_sum) {
    const int64_t first = block * Blocks::kSamples, batch = equations_.batch;
    Base::load_masks(first);
    Blocks::gather(args_.upstream, first, batch, d_, adjoint_.data());
    if constexpr (kQuadratic) Blocks::gather(args_.z, first, batch, d_, z_.data());
    for_tiles<Blocks::kRows>(0, d_, [&](auto rows, int64_t done) { tile<rows>(d_ - done - rows); });

    if (args_.grad_noise) Blocks::scatter(adjoint_.data(), first, batch, d_, args_.grad_noise);
    if (offset_sum) add_lanes(adjoint_, first, offset_sum);
    if (values_sum) {
      add_lanes(values_, first, values_sum);
    } else if (args_.grad_values) {
      Blocks::scatter(values_.data(), first, batch, d_, args_.grad_values);
    }
    if (args_.grad_jac) jac_sum_.add(adjoint_.data(), args_.z, [](T z) { return z; }, first, batch);
    if (args_.grad_quadratic) quadratic_sum_.add(adjoint_.data(), args_.z, [](T z) { return z * z; }, first, batch);
  }

  // Adds the sums over the batch to those (d, d) that are not null.
  void flush(double* jac, double* quadratic) {
    if (jac) jac_sum_.flush(jac);
    if (quadratic) quadratic_sum_.flush(quadratic);
  }

 private:
  // Nodes [i, i + kRows): first what comes from the nodes behind them, then one after the other, backwards.
  template <int kRows>
  CVF_INLINE void tile(int64_t i) {
    V acc[kRows][kGroups], slope[kRows][kGroups] = {};
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) acc[r][g] = adjoint_[g * d_ + i + r];
    }
    const Right<T> right{adjoint_.data(), 1, d_};
    multiply_tile<1, T>(acc, Left<T>{equations_.jac.data + i, 1, d_}, right, i + kRows, d_);
    if constexpr (kQuadratic) {
      multiply_tile<1, T>(slope, Left<T>{equations_.quadratic.data + i, 1, d_}, right, i + kRows, d_);
    }
    for (int s = kRows - 1; s >= 0; --s) {
      for (int g = 0; g < kGroups; ++g) {
        const int64_t k = g * d_ + i + s, row = (i + s) * d_ + i;
        V total = acc[s][g];
        if constexpr (kQuadratic) total += T(2) * z_[k] * slope[s][g];
        const LaneMask<T> own = Base::own(i + s, g);
        const V adjoint = where<T>(own, total);
        adjoint_[k] = adjoint;
        values_[k] = where<T>(~own, total);
        for (int r = 0; r < s; ++r) {
          acc[r][g] += equations_.jac.data[row + r] * adjoint;
          if constexpr (kQuadratic) slope[r][g] += equations_.quadratic.data[row + r] * adjoint;
        }
      }
    }
  }

  void add_lanes(const Scratch<V>& vectors, int64_t first, double* sum) const {
    for (int g = 0; g < kGroups; ++g) {
      const LaneGroup samples = Base::group(first, g);
      for (int64_t i = 0; i < d_; ++i) {
        sum[i] += static_cast<double>(sum_lanes<T>(keep_first<T>(vectors[g * d_ + i], samples.count)));
      }
    }
  }

  const Backward<T>& args_;
  Scratch<V> adjoint_, values_, z_;  // (groups, d)
  OuterProductSum<T> jac_sum_, quadratic_sum_;
};

}  // namespace cvf::ancestral_sample::CVF_ISA
