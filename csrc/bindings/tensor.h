// Tensors of PyTorch, as bindings read and make them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <type_traits>

#include "bindings/dlpack.h"
#include "common/batched.h"

namespace cvf::bindings {

// Looks up what is needed of PyTorch, when the module is imported. Throws if this PyTorch does not offer it.
void find_torch();

// An argument: a tensor, or none. Valid as long as the Python object is.
class Tensor {
 public:
  explicit Tensor(PyObject* object, int32_t device_type = dlpack::kCpu);  // a tensor on such a device, or None

  explicit operator bool() const { return object_ != nullptr; }
  PyObject* object() const { return object_; }
  int dims() const { return view_.dims; }
  int64_t size(int dim) const { return view_.shape[dim]; }

  template <class T>
  bool holds() const {
    constexpr int kCode = std::is_floating_point_v<T> ? 2 : std::is_same_v<T, bool> ? 6 : 0;
    return view_.dtype.code == kCode && view_.dtype.bits == 8 * sizeof(T) && view_.dtype.lanes == 1;
  }

  // Rows of the last `event_dims` dimensions, one for each sample, or one for all. Null for no tensor. If rows have
  // gaps, or the memory holds other values than the tensor has (negative views), they are those of a copy, which
  // lives as long as this object.
  template <class T>
  Batched<T> rows(int event_dims) {
    if (object_ == nullptr) return {};
    require(holds<T>());
    if (!is_readable(event_dims)) copy();
    return {static_cast<const T*>(view_.data), dims() > event_dims ? view_.strides[0] : 0};
  }

  // The same of a mask, whose bytes are 0 or 1.
  Batched<uint8_t> mask_rows(int event_dims) {
    const Batched<bool> found = rows<bool>(event_dims);
    return {reinterpret_cast<const uint8_t*>(found.data), found.stride};
  }

  // The same of one row, whatever its dimensions.
  template <class T>
  const T* row() {
    return object_ == nullptr ? nullptr : rows<T>(dims()).data;
  }

  // Where a result is written; null for no tensor.
  template <class T>
  T* output() const {
    if (object_ == nullptr) return nullptr;
    require(holds<T>() && has_no_gaps(dims()));
    return static_cast<T*>(view_.data);
  }

 private:
  static void require(bool fits) {
    if (!fits) throw std::invalid_argument("a tensor has another dtype or layout than the kernel takes");
  }
  bool has_no_gaps(int event_dims) const;
  bool is_readable(int event_dims) const;
  void copy();

  PyObject* object_ = nullptr;
  int32_t device_type_ = dlpack::kCpu;
  pybind11::object copy_;
  dlpack::Tensor view_{};
};

// An argument on a CUDA device.
class CudaTensor : public Tensor {
 public:
  explicit CudaTensor(PyObject* object) : Tensor(object, dlpack::kCuda) {}
};

// Of tensors, strings, bools and None: dtypes, shapes, and which are what, as bytes, equal for calls alike in these.
// None unless the call is ordinary: tensors are dense, on the CPU, and of no subclass but Parameter, and nothing of
// PyTorch watches or transforms what is called (autocast, tracing, modes, torch.func, forward mode).
PyObject* signature(PyObject* const* arguments, Py_ssize_t count);

// (tensor): its first element, as a float. None for what is no ordinary tensor, in the sense above.
PyObject* first_element(PyObject* const* arguments, Py_ssize_t count);

// (like, *sizes): an uninitialised tensor with the dtype of another. The memory of large ones is kept for the next call
// when they are freed (common/buffer_pool.h).
PyObject* empty(PyObject* const* arguments, Py_ssize_t count);

// (tensors, wanted): a list of uninitialised tensors, without gaps, shaped as those given, and None where not wanted.
PyObject* empty_like(PyObject* const* arguments, Py_ssize_t count);

// Calls body.operator()<T>() with the type that the tensor holds.
template <class Body>
void with_type_of(const Tensor& tensor, Body body) {
  if (tensor.holds<float>()) {
    body.template operator()<float>();
  } else if (tensor.holds<double>()) {
    body.template operator()<double>();
  } else {
    throw std::invalid_argument("kernels take tensors of float32 or float64");
  }
}

}  // namespace cvf::bindings
