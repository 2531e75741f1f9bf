// Lower triangular matrices in panels of columns: how the products of large d read their operands.
#pragma once

#include "common/scratch.h"
#include "common/simd.h"

namespace cvf::sem_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// A panel is a cache line wide, so that each step of a product reads one line of an operand, right behind the one
// before: rows of the matrix itself would lie in as many pages as there are steps.
template <class T>
inline constexpr int kPanelWidth = kCacheLine / sizeof(T);

// Panel p holds columns [p w, (p + 1) w) of the rows from p w on, w = kPanelWidth, row by row.
template <class T>
class LowerPanels {
  static constexpr int64_t kWide = kPanelWidth<T>;

 public:
  explicit LowerPanels(int64_t d) : rows_(round_up(d, kWide)), data_(begin(rows_ / kWide)) {}

  // The line of panel p in row i, i >= p w.
  T* line(int64_t i, int64_t p) { return &data_[begin(p) + (i - p * kWide) * kWide]; }
  const T* line(int64_t i, int64_t p) const { return &data_[begin(p) + (i - p * kWide) * kWide]; }

  // A panel as if it began with row 0.
  const T* panel(int64_t p) const { return data_.data() + begin(p) - p * kWide * kWide; }

 private:
  int64_t begin(int64_t p) const { return kWide * (p * rows_ - kWide * (p * (p - 1) / 2)); }

  int64_t rows_;  // d, rounded up to whole panels
  Scratch<T> data_;
};

}  // namespace cvf::sem_kl::CVF_ISA
