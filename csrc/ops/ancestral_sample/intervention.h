// Which nodes follow their own equation, as masks of lanes.
#pragma once

#include "common/lanes.h"
#include "common/scratch.h"
#include "ops/ancestral_sample/ancestral_sample.h"

namespace cvf::ancestral_sample::CVF_ISA {

using namespace cvf::CVF_ISA;

template <class T>
using LaneMask = typename Simd<T>::Int;  // all bits of a lane are set, or none

// v where the mask is set, zero elsewhere, whatever v holds there.
template <class T>
CVF_INLINE Vec<T> where(LaneMask<T> mask, Vec<T> v) {
  return reinterpret_cast<Vec<T>>(mask & reinterpret_cast<LaneMask<T>>(v));
}

template <class T>
CVF_INLINE Vec<T> select(LaneMask<T> mask, Vec<T> yes, Vec<T> no) {
  return reinterpret_cast<Vec<T>>((mask & reinterpret_cast<LaneMask<T>>(yes)) |
                                  (~mask & reinterpret_cast<LaneMask<T>>(no)));
}

// own[i], for i < d: set in the lanes of the samples in which node i follows its own equation.
template <class T>
void load_own_equations(const Batched<uint8_t>& do_mask, LaneGroup group, int64_t d, LaneMask<T>* own) {
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const uint8_t* row = do_mask[group.sample(lane)];
    for (int64_t i = 0; i < d; ++i) own[i][lane] = row[i] ? 0 : -1;
  }
}

// For each of d nodes: set in the lanes of the samples in which it follows its own equation.
template <class T>
class OwnEquation {
 public:
  explicit OwnEquation(const Equations<T>& equations) : mask_(equations.do_mask), d_(equations.d), own_(equations.d) {
    for (int64_t i = 0; i < d_; ++i) own_[i] = LaneMask<T>{} + (mask_.data && mask_.data[i] ? 0 : -1);
  }

  // To be called before the nodes of another group are asked for.
  void load(LaneGroup group) {
    if (mask_.stride == 0 || group.count == 0) return;  // the batch shares one row
    load_own_equations<T>(mask_, group, d_, own_.data());
  }

  LaneMask<T> operator[](int64_t i) const { return own_[i]; }

 private:
  const Batched<uint8_t> mask_;
  const int64_t d_;
  Scratch<LaneMask<T>> own_;  // (d,)
};

}  // namespace cvf::ancestral_sample::CVF_ISA
