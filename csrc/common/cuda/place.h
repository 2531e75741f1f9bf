// Where kernels are launched.
#pragma once

namespace cvf::cuda {

struct Place {
  int device = 0;
  void* stream = nullptr;  // a cudaStream_t of the device
};

}  // namespace cvf::cuda
