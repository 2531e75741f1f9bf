// Launching kernels on the device and stream that the caller names; each launch is checked. Nothing is allocated here
// and nothing waits, so that every call can be captured in a CUDA graph.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/cuda/place.h"

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace cvf::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // is said here, and not again by the next launch
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Makes the device of a place the current one, and the former one afterwards.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Place& place) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (previous_ == place.device) return;
    check(cudaSetDevice(place.device), "cudaSetDevice");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

// The device of the place is the current one. More than 48 KB of shared memory have to be asked for.
template <class... Parameters, class... Arguments>
void launch(const Place& place, void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            const Arguments&... arguments) {
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "shared memory of a kernel");
  }
  kernel<<<grid, static_cast<unsigned>(threads), shared_bytes, static_cast<cudaStream_t>(place.stream)>>>(arguments...);
  check(cudaGetLastError(), "launch of a kernel");
}

// What a block has of the memory that its launch asked for.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

}  // namespace cvf::cuda

#else
#include "cuda_on_cpu.h"  // of the tests
#endif

namespace cvf::cuda {

inline dim3 grid_of(int64_t x, int64_t y = 1) { return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)); }

constexpr int64_t blocks_of(int64_t items, int64_t size) { return (items + size - 1) / size; }

}  // namespace cvf::cuda
