// Samples across SIMD lanes: element k of sample l stands in lane l of vector k.
#pragma once

#include <algorithm>

#include "common/batched.h"
#include "common/output.h"
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
CVF_NOINLINE void gather_lanes(Batched<T> rows, LaneGroup group, int64_t length, const T* end, Vec<T>* out) {
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
CVF_NOINLINE void scatter_lanes(const Vec<T>* in, LaneGroup group, int64_t length, T* out) {
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

// Lower triangular matrices (d, d), d >= kLanes<T>, of a group: out[i * stride + j] for j < i + diagonal. What stands
// above that is not touched, and not read but for the rest of a vector that begins below it.
template <class T>
CVF_NOINLINE void gather_triangle(Batched<T> matrices, LaneGroup group, int64_t d, int64_t diagonal, const T* end,
                                  int64_t stride, Vec<T>* out) {
  constexpr int n = kLanes<T>;
  for (int64_t i = 1 - diagonal; i < d; ++i) {
    for (int64_t j = 0; j < i + diagonal; j += n) {
      const int64_t width = std::min<int64_t>(n, i + diagonal - j);
      Vec<T> chunk[n];
      for (int lane = 0; lane < n; ++lane) {
        chunk[lane] = load_first(matrices[group.sample(lane)] + i * d + j, width, end);
      }
      transpose<T>(chunk);
      for (int64_t k = 0; k < width; ++k) out[i * stride + j + k] = chunk[k];
    }
  }
}

// The opposite for one row: in[j], for j < length, of the sample in each lane to row i of its matrix, zeros behind it.
template <class T>
CVF_NOINLINE void scatter_row(const Vec<T>* in, int64_t length, LaneGroup group, int64_t d, int64_t i,
                              const RowWriter<T>& writer, T* out) {
  constexpr int n = kLanes<T>;
  T* row = out + (group.first * d + i) * d;
  int64_t j = 0;
  for (; j < length; j += n) {
    Vec<T> chunk[n];
    for (int k = 0; k < n; ++k) chunk[k] = j + k < length ? in[j + k] : Vec<T>{};
    transpose<T>(chunk);
    for (int64_t lane = 0; lane < group.count; ++lane) writer.write(row + lane * d * d, j, chunk[lane]);
  }
  if (j >= d) return;
  for (int64_t lane = 0; lane < group.count; ++lane) writer.write_zeros(row + lane * d * d, j);
}

}  // namespace cvf::CVF_ISA
