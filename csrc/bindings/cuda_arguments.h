// What the CUDA bindings of all ops share.
#pragma once

#include <cstdint>

#include "bindings/arguments.h"
#include "common/cuda/place.h"

namespace cvf::bindings {

inline cuda::Place place_of(int device, int64_t stream) { return {device, reinterpret_cast<void*>(stream)}; }

// Memory for the kernels of one call: a tensor of PyTorch, whose allocator gives it to nobody else before the kernels
// on the current stream, which are those of this call, have run.
template <class T>
class Scratch {
 public:
  // On the device and with the dtype of a tensor.
  Scratch(const Tensor& like, int64_t elements) {
    if (elements == 0) return;
    tensor_ = pybind11::reinterpret_borrow<pybind11::object>(like.object()).attr("new_empty")(elements);
    data_ = CudaTensor(tensor_.ptr()).output<T>();
  }

  T* data() const { return data_; }

 private:
  pybind11::object tensor_;
  T* data_ = nullptr;
};

// Each op adds its functions to the module: csrc/bindings/ops/<op>_cuda.cpp.
void bind_ancestral_sample_cuda(pybind11::module_& module);
void bind_propagate_cuda(pybind11::module_& module);
void bind_gaussian_kl_cuda(pybind11::module_& module);

}  // namespace cvf::bindings
