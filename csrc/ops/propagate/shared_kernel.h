// loc for one jac that the batch shares: samples across SIMD lanes, numbers of A broadcast over them. No sample has a
// matrix of its own.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/batch_sum.h"
#include "common/lanes.h"
#include "common/triangular_solve.h"
#include "ops/propagate/terms.h"

namespace cvf::propagate::CVF_ISA {

// Samples are taken in blocks of kGroups groups; vector g * d + i holds element i of those of group g.
template <class T>
struct SharedBlocks {
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kGroups = 2;
  static constexpr int kRows = kManyRegisters ? 8 : 4;
  static constexpr int64_t kSamples = kGroups * kWidth;

  // Group g of the block that begins at sample `first`; it may be empty.
  static LaneGroup group(int64_t first, int64_t batch, int g) {
    const int64_t begin = first + g * kWidth;
    return {begin, std::clamp<int64_t>(batch - begin, 0, kWidth)};
  }

  static void gather(const Batched<T>& rows, int64_t first, int64_t batch, int64_t d, Vec<T>* out) {
    for (int g = 0; g < kGroups; ++g) {
      const LaneGroup samples = group(first, batch, g);
      if (samples.count > 0) {
        gather_lanes(rows, samples, d, rows.end(batch, d), out + g * d);
      } else {
        for (int64_t i = 0; i < d; ++i) out[g * d + i] = Vec<T>{};
      }
    }
  }

  static void scatter(const Vec<T>* in, int64_t first, int64_t batch, int64_t d, T* out) {
    for (int g = 0; g < kGroups; ++g) {
      const LaneGroup samples = group(first, batch, g);
      if (samples.count > 0) scatter_lanes<T>(in + g * d, samples, d, out);
    }
  }
};

template <class T>
class SharedForward {
  using Blocks = SharedBlocks<T>;

 public:
  explicit SharedForward(const Forward<T>& args) : args_(args), x_(Blocks::kGroups * args.d) {}

  // loc = W^-1 b of one block.
  void run(int64_t block) {
    const int64_t d = args_.d, first = block * Blocks::kSamples;
    Blocks::gather(args_.offset, first, args_.batch, d, x_.data());
    solve_lower<T, Blocks::kRows, Blocks::kGroups>(Left<T>{args_.jac.data, d, 1}, Solution<T>{x_.data(), 1, d}, 0, d);
    Blocks::scatter(x_.data(), first, args_.batch, d, args_.loc);
  }

 private:
  const Forward<T>& args_;
  Scratch<Vec<T>> x_;  // (groups, d)
};

template <class T>
class SharedBackward {
  using V = Vec<T>;
  using Blocks = SharedBlocks<T>;
  static constexpr int kWidth = Blocks::kWidth;
  static constexpr int kGroups = Blocks::kGroups;

 public:
  explicit SharedBackward(const Backward<T>& args)
      : args_(args),
        d_(args.d),
        row_(round_up(args.d, kWidth)),
        adjoint_(kGroups * d_),
        loc_rows_(args.grad_jac ? Blocks::kSamples * row_ : 0),
        jac_sum_(args.grad_jac ? d_ * row_ : 0) {
    if (!args.grad_jac) return;
    for (int64_t k = 0; k < Blocks::kSamples * row_; ++k) loc_rows_[k] = T(0);
    for (int64_t k = 0; k < d_ * row_; ++k) jac_sum_[k] = T(0);
  }

  // y = W^-T g of one block, which is the gradient of b; y loc^T is summed until `flush`.
  void run(int64_t block) {
    const int64_t first = block * Blocks::kSamples;
    Blocks::gather(args_.upstream_loc, first, args_.batch, d_, adjoint_.data());
    solve_transposed<T, Blocks::kRows, kGroups>(Left<T>{args_.jac.data, d_, 1}, Solution<T>{adjoint_.data(), 1, d_}, 0,
                                                d_);
    if (args_.grad_offset) Blocks::scatter(adjoint_.data(), first, args_.batch, d_, args_.grad_offset);
    if (args_.grad_jac) add_products(first);
  }

  // Adds what was summed to `total` (d, d), below the diagonal.
  void flush(double* total) {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < i; ++j) total[i * d_ + j] += static_cast<double>(jac_sum_[i * row_ + j]);
      for (int64_t j = 0; j < row_; ++j) jac_sum_[i * row_ + j] = T(0);
    }
  }

 private:
  void add_products(int64_t first) {
    const int64_t count = std::min<int64_t>(Blocks::kSamples, args_.batch - first);
    for (int64_t sample = 0; sample < count; ++sample) {
      std::memcpy(&loc_rows_[sample * row_], args_.loc[first + sample], static_cast<size_t>(d_) * sizeof(T));
    }
    for (int64_t j = 0; j < d_; j += kWidth) {
      for_tiles<Blocks::kRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int n = rows;
        V acc[n][1];
        for (int r = 0; r < n; ++r) acc[r][0] = load(&jac_sum_[(i + r) * row_ + j]);
        for (int g = 0; g < kGroups; ++g) {
          const LaneGroup samples = Blocks::group(first, args_.batch, g);
          const T* adjoint = reinterpret_cast<const T*>(&adjoint_[g * d_ + i]);
          const V* loc = reinterpret_cast<const V*>(&loc_rows_[g * kWidth * row_ + j]);
          multiply_tile<1, T>(acc, Left<T>{adjoint, kWidth, 1}, Right<T>{loc, row_ / kWidth, 1}, 0, samples.count);
        }
        for (int r = 0; r < n; ++r) store(&jac_sum_[(i + r) * row_ + j], acc[r][0]);
      });
    }
  }

  const Backward<T>& args_;
  const int64_t d_;
  const int64_t row_;    // elements between rows of the buffers
  Scratch<V> adjoint_;   // (groups, d): y
  Scratch<T> loc_rows_;  // (samples of a block, row), padded with zeros
  Scratch<T> jac_sum_;   // (d, row): sum of y loc^T; what stands on and above the diagonal does not count
};

}  // namespace cvf::propagate::CVF_ISA
