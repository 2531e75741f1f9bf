// Samples across SIMD lanes: element k of sample l stands in lane l of vector k.
#pragma once

#include <algorithm>

#include "common/batched.h"
#include "common/simd.h"

namespace cvf::CVF_ISA {

// A group of up to kLanes samples. Lanes without a sample repeat the last one before them, so that they hold valid
// numbers; what they compute is never stored or summed.
struct LaneGroup {
  int64_t first;  // sample of lane 0
  int64_t count;  // samples in the group

  int64_t sample(int64_t lane) const { return first + std::min(lane, count - 1); }
};

// out[k], for k < length: element k of each sample's row. A row may be read past its own end, but not past `end`,
// the end of the last row that exists.
template <class T>
CVF_INLINE void gather_lanes(Batched<T> rows, LaneGroup group, int64_t length, const T* end, Vec<T>* out) {
  constexpr int n = kLanes<T>;
  for (int64_t k = 0; k < length; k += n) {
    // The last chunk overlaps the one before rather than be partial.
    if (k + n > length && length >= n) k = length - n;
    Vec<T> chunk[n];
    for (int lane = 0; lane < n; ++lane) {
      const T* source = rows[group.sample(lane)] + k;
      chunk[lane] = source + n <= end ? load(source) : load_partial(source, length - k);
    }
    transpose<T>(chunk);
    const int64_t width = std::min<int64_t>(n, length - k);
    for (int64_t i = 0; i < width; ++i) out[k + i] = chunk[i];
  }
}

// The opposite, into rows that follow each other without a gap (stride == length).
template <class T>
CVF_INLINE void scatter_lanes(const Vec<T>* in, LaneGroup group, int64_t length, T* out) {
  constexpr int n = kLanes<T>;
  for (int64_t k = 0; k < length; k += n) {
    if (k + n > length && length >= n) k = length - n;
    const int64_t width = std::min<int64_t>(n, length - k);
    Vec<T> chunk[n];
    for (int i = 0; i < n; ++i) chunk[i] = i < width ? in[k + i] : Vec<T>{};
    transpose<T>(chunk);
    for (int64_t lane = 0; lane < group.count; ++lane) {
      T* target = out + (group.first + lane) * length + k;
      // Of rows shorter than a vector, what is written past the end of one is overwritten by the next.
      if (lane * length + k + n <= group.count * length) {
        store(target, chunk[lane]);
      } else {
        store_partial(target, chunk[lane], width);
      }
    }
  }
}

}  // namespace cvf::CVF_ISA
