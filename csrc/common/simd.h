// Vectors of the widest register of the instruction set that this file is compiled for.
//
// Kernels are compiled once per instruction set. Everything here stands in the namespace of that set, so that
// the linker never merges a function compiled for AVX-512 with its twin for an older machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef CVF_ISA
#error "define CVF_ISA as the instruction set that this translation unit is compiled for"
#endif

#define CVF_INLINE inline __attribute__((always_inline))
// For what is large and called from many places: compiling it once for each of them takes most of the time of a build.
#define CVF_NOINLINE __attribute__((noinline))

namespace cvf::CVF_ISA {

inline constexpr int kCacheLine = 64;  // bytes

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr bool kManyRegisters = true;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr bool kManyRegisters = false;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr bool kManyRegisters = false;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  using Vec = float __attribute__((vector_size(kVectorBytes)));
  using Unaligned = float __attribute__((vector_size(kVectorBytes), aligned(alignof(float)), may_alias));
  using Int = int32_t __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / 4;
  static constexpr int kMantissaBits = 23;
  static constexpr int32_t kMantissaMask = 0x7fffff;
  static constexpr int32_t kExponentBias = 127;
};

template <>
struct Simd<double> {
  using Vec = double __attribute__((vector_size(kVectorBytes)));
  using Unaligned = double __attribute__((vector_size(kVectorBytes), aligned(alignof(double)), may_alias));
  using Int = int64_t __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / 8;
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kMantissaMask = 0xfffffffffffff;
  static constexpr int64_t kExponentBias = 1023;
};

template <class T>
using Vec = typename Simd<T>::Vec;

template <class T>
inline constexpr int kLanes = Simd<T>::kLanes;

template <class T>
CVF_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}

template <class T>
CVF_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}

// Past the cache, for results too large to stay there: no line is read before it is written. p is aligned to a vector.
// Call `finish_streaming` before another thread reads them.
template <class T>
CVF_INLINE void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
  store(p, v);
#endif
}

CVF_INLINE void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class T>
CVF_INLINE Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// All bits set in the first `count` lanes: none if it is negative, all if it is larger than a vector.
template <class T>
CVF_INLINE typename Simd<T>::Int first_lanes(int64_t count) {
  typename Simd<T>::Int lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  return lane < static_cast<decltype(lane[0] + 0)>(count);
}

// The first `count` lanes of v, the others zero, whatever they hold.
template <class T>
CVF_INLINE Vec<T> keep_first(Vec<T> v, int64_t count) {
  return reinterpret_cast<Vec<T>>(reinterpret_cast<typename Simd<T>::Int>(v) & first_lanes<T>(count));
}

// All but the first `count` lanes of v, those zero, whatever they hold.
template <class T>
CVF_INLINE Vec<T> drop_first(Vec<T> v, int64_t count) {
  return reinterpret_cast<Vec<T>>(reinterpret_cast<typename Simd<T>::Int>(v) & ~first_lanes<T>(count));
}

#if defined(__AVX512F__)
namespace detail {

// As the mask registers have it, a bit for each lane.
template <class T>
CVF_INLINE uint32_t first_bits(int64_t count) {
  return (uint32_t{1} << std::clamp<int64_t>(count, 0, kLanes<T>)) - 1;
}

}  // namespace detail
#endif

// The first `count` lanes from p, the others zero. Reads nothing behind p + count.
template <class T>
CVF_INLINE Vec<T> load_partial(const T* p, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(detail::first_bits<T>(count)), p);
  } else {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(detail::first_bits<T>(count)), p);
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    return _mm256_maskload_ps(p, reinterpret_cast<__m256i>(first_lanes<T>(count)));
  } else {
    return _mm256_maskload_pd(p, reinterpret_cast<__m256i>(first_lanes<T>(count)));
  }
#else
  Vec<T> v{};
  for (int64_t lane = 0; lane < std::min<int64_t>(count, kLanes<T>); ++lane) v[lane] = p[lane];
  return v;
#endif
}

// The same where it is known that memory goes on to `end`, which is faster on machines without masked loads.
template <class T>
CVF_INLINE Vec<T> load_first(const T* p, int64_t count, [[maybe_unused]] const T* end) {
#if !defined(__AVX__)
  if (p + kLanes<T> <= end) return keep_first<T>(load(p), count);
#endif
  return load_partial(p, count);
}

// Writes nothing behind p + count.
template <class T>
CVF_INLINE void store_partial(T* p, Vec<T> v, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(detail::first_bits<T>(count)), v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(detail::first_bits<T>(count)), v);
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    _mm256_maskstore_ps(p, reinterpret_cast<__m256i>(first_lanes<T>(count)), v);
  } else {
    _mm256_maskstore_pd(p, reinterpret_cast<__m256i>(first_lanes<T>(count)), v);
  }
#else
  for (int64_t lane = 0; lane < std::min<int64_t>(count, kLanes<T>); ++lane) p[lane] = v[lane];
#endif
}

// Square roots; NaN of a negative number.
template <class T>
CVF_INLINE Vec<T> square_root(Vec<T> v) {
#if defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
#if defined(__AVX512F__)
    return _mm512_maskz_sqrt_ps(0xffff, v);  // GCC 12 warns inside of the unmasked one
#elif defined(__AVX__)
    return _mm256_sqrt_ps(v);
#else
    return _mm_sqrt_ps(v);
#endif
  } else {
#if defined(__AVX512F__)
    return _mm512_maskz_sqrt_pd(0xff, v);
#elif defined(__AVX__)
    return _mm256_sqrt_pd(v);
#else
    return _mm_sqrt_pd(v);
#endif
  }
#else
  for (int lane = 0; lane < kLanes<T>; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
#endif
}

// Lane l of the result is lane index[l] of the 2 N lanes of a and b put together.
template <class T, int... kIndex>
CVF_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, kIndex...);
#else
  return __builtin_shuffle(a, b, typename Simd<T>::Int{kIndex...});
#endif
}

namespace detail {

// One stage of the transposition: exchanges the off-diagonal blocks of size kHalf between a and b.
template <class T, int kHalf, int... kLane>
CVF_INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, kLane...>) {
  constexpr int n = kLanes<T>;
  const Vec<T> top = shuffle<T, ((kLane & kHalf) ? n + kLane - kHalf : kLane)...>(a, b);
  const Vec<T> bottom = shuffle<T, ((kLane & kHalf) ? n + kLane : kLane + kHalf)...>(a, b);
  a = top;
  b = bottom;
}

template <class T, int kHalf>
CVF_INLINE void transpose_from(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (kHalf > 0) {
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & kHalf) == 0) {
        exchange<T, kHalf>(rows[i], rows[i + kHalf], std::make_integer_sequence<int, kLanes<T>>{});
      }
    }
    transpose_from<T, kHalf / 2>(rows);
  }
}

}  // namespace detail

namespace detail {

template <class T, int kHalf>
CVF_INLINE Vec<T> sum_rows_from(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (kHalf == kLanes<T>) {
    return rows[0];
  } else {
    for (int i = 0; i < kLanes<T>; i += 2 * kHalf) {
      exchange<T, kHalf>(rows[i], rows[i + kHalf], std::make_integer_sequence<int, kLanes<T>>{});
      rows[i] += rows[i + kHalf];
    }
    return sum_rows_from<T, 2 * kHalf>(rows);
  }
}

template <class T, int kHalf>
CVF_INLINE T sum_lanes_from(Vec<T> v) {
  if constexpr (kHalf == 0) {
    return v[0];
  } else {
    Vec<T> other = v;
    exchange<T, kHalf>(v, other, std::make_integer_sequence<int, kLanes<T>>{});
    return sum_lanes_from<T, kHalf / 2>(v + other);
  }
}

}  // namespace detail

// Lane r of the result is the sum of the lanes of row r. Destroys the rows.
template <class T>
CVF_NOINLINE Vec<T> sum_rows(Vec<T> (&rows)[kLanes<T>]) {
  return detail::sum_rows_from<T, 1>(rows);
}

template <class T>
CVF_INLINE T sum_lanes(Vec<T> v) {
  return detail::sum_lanes_from<T, kLanes<T> / 2>(v);
}

// In place: lane l of row r and lane r of row l change places.
template <class T>
CVF_INLINE void transpose(Vec<T> (&rows)[kLanes<T>]) {
  detail::transpose_from<T, kLanes<T> / 2>(rows);
}

}  // namespace cvf::CVF_ISA
