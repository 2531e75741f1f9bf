// Working memory of a kernel.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/simd.h"

namespace cvf::CVF_ISA {

// Uninitialised elements of T, aligned to a cache line, freed with the object.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<T*>(std::aligned_alloc(kAlignment, bytes == 0 ? kAlignment : bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr size_t kAlignment = 64;
  T* data_;
};

}  // namespace cvf::CVF_ISA
