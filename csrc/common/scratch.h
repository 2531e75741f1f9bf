// Working memory of a kernel.
#pragma once

#include <cstdint>

#include "common/buffer_pool.h"
#include "common/simd.h"

namespace cvf::CVF_ISA {

// Uninitialised elements of T, aligned to a cache line, given back with the object. Objects of one thread are
// destroyed in the opposite order of their construction, as members and locals are.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_(static_cast<size_t>(count) * sizeof(T)), data_(static_cast<T*>(acquire_scratch(bytes_))) {}
  ~Scratch() { release_scratch(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  size_t bytes_;
  T* data_;
};

}  // namespace cvf::CVF_ISA
