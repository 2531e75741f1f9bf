// Samples across lanes where the batch shares a matrix: blocks of several groups, so that each of its numbers that
// is loaded serves several vectors; and the gradient of such a matrix.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/batched.h"
#include "common/lanes.h"
#include "common/scratch.h"
#include "common/tile.h"

namespace cvf::CVF_ISA {

// In the buffers of a block, vector g * d + i holds element i of the samples of group g.
template <class T>
struct LaneBlocks {
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kGroups = 2;
  static constexpr int kRows = kManyRegisters ? 8 : 4;
  static constexpr int64_t kSamples = kGroups * kWidth;

  static int64_t count(int64_t batch) { return (batch + kSamples - 1) / kSamples; }

  // Group g of the block that begins at sample `first`; it may be empty.
  static LaneGroup group(int64_t first, int64_t batch, int g) {
    const int64_t begin = first + g * kWidth;
    return {begin, std::clamp<int64_t>(batch - begin, 0, kWidth)};
  }

  // out (groups, d), zero for an empty group.
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

// The sum over samples of y x^T below the diagonal, in T for a number of blocks and then in double.
template <class T>
class OuterProductSum {
  using V = Vec<T>;
  using Blocks = LaneBlocks<T>;
  static constexpr int kWidth = Blocks::kWidth;

 public:
  // Nothing can be added if `wanted` is false.
  OuterProductSum(bool wanted, int64_t d)
      : d_(d),
        row_((d + kWidth - 1) / kWidth * kWidth),
        rows_(wanted ? Blocks::kSamples * row_ : 0),
        sum_(wanted ? d * row_ : 0) {
    if (!wanted) return;
    for (int64_t k = 0; k < Blocks::kSamples * row_; ++k) rows_[k] = T(0);
    for (int64_t k = 0; k < d * row_; ++k) sum_[k] = T(0);
  }

  // Adds those of the block that begins at sample `first`: y as (groups, d) vectors, f(x) for x (B, d).
  template <class Function>
  void add(const V* y, const Batched<T>& x, Function&& f, int64_t first, int64_t batch) {
    const int64_t count = std::min<int64_t>(Blocks::kSamples, batch - first);
    for (int64_t sample = 0; sample < count; ++sample) {
      for (int64_t j = 0; j < d_; ++j) rows_[sample * row_ + j] = f(x[first + sample][j]);
    }
    for (int64_t j = 0; j < d_; j += kWidth) {
      for_tiles<Blocks::kRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int n = rows;
        V acc[n][1];
        for (int r = 0; r < n; ++r) acc[r][0] = load(&sum_[(i + r) * row_ + j]);
        for (int g = 0; g < Blocks::kGroups; ++g) {
          const LaneGroup samples = Blocks::group(first, batch, g);
          const Left<T> left{reinterpret_cast<const T*>(y + g * d_ + i), kWidth, 1};
          const V* right = reinterpret_cast<const V*>(&rows_[g * kWidth * row_ + j]);
          multiply_tile<1, T>(acc, left, Right<T>{right, row_ / kWidth, 1}, 0, samples.count);
        }
        for (int r = 0; r < n; ++r) store(&sum_[(i + r) * row_ + j], acc[r][0]);
      });
    }
  }

  // Adds what was summed to `total` (d, d), below the diagonal.
  void flush(double* total) {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < i; ++j) total[i * d_ + j] += static_cast<double>(sum_[i * row_ + j]);
      for (int64_t j = 0; j < row_; ++j) sum_[i * row_ + j] = T(0);
    }
  }

 private:
  const int64_t d_;
  const int64_t row_;  // elements between rows of the buffers
  Scratch<T> rows_;    // (samples of a block, row), padded with zeros
  Scratch<T> sum_;     // (d, row); what stands on and above the diagonal does not count
};

}  // namespace cvf::CVF_ISA
