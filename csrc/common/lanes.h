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

// Vectors behind the rows of a buffer that triangles are gathered into, or scattered from: they are moved a cache line
// of each sample at a time.
template <class T>
inline constexpr int kLanePadding = kCacheLine / sizeof(T);

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

namespace detail {

template <class T, bool kAhead>
CVF_NOINLINE void gather_triangle(Batched<T> matrices, LaneGroup group, int64_t d, int64_t diagonal, const T* end,
                                  int64_t stride, Vec<T>* out) {
  constexpr int n = kLanes<T>;
  for (int64_t i = 1 - diagonal; i < d; ++i) {
    for (int64_t j = 0; j < i + diagonal; j += n) {
      const int64_t width = std::min<int64_t>(n, i + diagonal - j);
      Vec<T> chunk[n];
      for (int lane = 0; lane < n; ++lane) {
        const T* source = matrices[group.sample(lane)] + i * d + j;
        if constexpr (kAhead) __builtin_prefetch(source + 2 * d, 0, 2);
        chunk[lane] = load_first(source, width, end);
      }
      transpose<T>(chunk);
      for (int k = 0; k < n; ++k) out[i * stride + j + k] = chunk[k];
    }
  }
}

// Elements [k, k + kLanes) of `in` to the lanes, as columns of a row of each sample; zeros from `length` on.
template <class T>
CVF_INLINE void columns_of_lanes(const Vec<T>* in, int64_t k, int64_t length, Vec<T> (&chunk)[kLanes<T>]) {
  for (int v = 0; v < kLanes<T>; ++v) chunk[v] = in[k + v];
  transpose<T>(chunk);
  if (k + kLanes<T> <= length) return;
  for (Vec<T>& row : chunk) row = keep_first<T>(row, length - k);
}

}  // namespace detail

// Lower triangular matrices (d, d), d >= kLanes<T>, of a group: out[i * stride + j] for j < i + diagonal, and zeros up
// to kLanes - 1 vectors behind them, which for the last row may lie in the padding. Above the diagonal nothing is read
// but the rest of a vector that begins below it.
//
// Rows that grow, in as many places as there are lanes, defeat the hardware's prefetcher. Long ones are asked for
// ahead, into the second level of the cache: in the first, matrices a power of two apart would drive each other out.
template <class T>
void gather_triangle(Batched<T> matrices, LaneGroup group, int64_t d, int64_t diagonal, const T* end, int64_t stride,
                     Vec<T>* out) {
  if (d > 2 * kLanes<T>) {
    detail::gather_triangle<T, true>(matrices, group, d, diagonal, end, stride, out);
  } else {
    detail::gather_triangle<T, false>(matrices, group, d, diagonal, end, stride, out);
  }
}

// The same for packed matrices, the diagonal included.
template <class T>
CVF_NOINLINE void gather_packed_triangle(Batched<T> matrices, LaneGroup group, int64_t d, const T* end, int64_t stride,
                                         Vec<T>* out) {
  constexpr int n = kLanes<T>;
  const int64_t length = d * (d + 1) / 2;
  int64_t i = 0, j = 0;
  for (int64_t k = 0; k < length; k += n) {
    const int64_t width = std::min<int64_t>(n, length - k);
    Vec<T> chunk[n];
    for (int lane = 0; lane < n; ++lane) chunk[lane] = load_first(matrices[group.sample(lane)] + k, width, end);
    transpose<T>(chunk);
    for (int64_t v = 0; v < width; ++v) {
      out[i * stride + j] = chunk[v];
      if (j++ == i) {
        ++i;
        j = 0;
      }
    }
  }
}

// Elements [column, column + length) of a row of each sample, from vectors; rows are `stride` apart. What is left of
// the last vector, or line, that is written is zero, as far as the row goes; returns where it ends. The vectors go on
// behind `length`, with anything.
template <class T>
CVF_INLINE int64_t scatter_columns(const Vec<T>* in, int64_t column, int64_t length, int64_t lanes,
                                   const RowWriter<T>& writer, T* row, int64_t stride) {
  constexpr int n = kLanes<T>;
  constexpr int kLine = kCacheLine / sizeof(T);
  int64_t k = 0;
  if (lanes == n && writer.streamed()) {
    // Whole lines: past the cache, a part of one costs as much.
    for (; k < length && column + k + kLine <= writer.columns(); k += kLine) {
      Vec<T> line[kLine / n][n];
      for (int c = 0; c < kLine / n; ++c) detail::columns_of_lanes<T>(in, k + c * n, length, line[c]);
      for (int lane = 0; lane < n; ++lane) {
        for (int c = 0; c < kLine / n; ++c) stream(row + lane * stride + column + k + c * n, line[c][lane]);
      }
    }
  }
  for (; k < length; k += n) {
    Vec<T> chunk[n];
    detail::columns_of_lanes<T>(in, k, length, chunk);
    if (lanes == n && !writer.streamed() && column + k + n <= writer.columns()) {
      for (int lane = 0; lane < n; ++lane) store(row + lane * stride + column + k, chunk[lane]);
    } else {
      for (int64_t lane = 0; lane < lanes; ++lane) writer.write(row + lane * stride, column + k, chunk[lane]);
    }
  }
  return column + k;
}

// The opposite for one row: in[j], for j < length, of the sample in each lane to row i of its matrix, zeros behind it.
template <class T>
CVF_NOINLINE void scatter_row(const Vec<T>* in, int64_t length, LaneGroup group, int64_t d, int64_t i,
                              const RowWriter<T>& writer, T* out) {
  T* row = out + (group.first * d + i) * d;
  const int64_t end = scatter_columns(in, 0, length, group.count, writer, row, d * d);
  if (end >= d) return;
  for (int64_t lane = 0; lane < group.count; ++lane) writer.write_zeros(row + lane * d * d, end);
}

}  // namespace cvf::CVF_ISA
