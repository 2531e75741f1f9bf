#include "bindings/tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "common/buffer_pool.h"

namespace py = pybind11;

namespace cvf::bindings {
namespace {

// What is needed of PyTorch, looked up once.
struct Torch {
  py::object tensor = py::module_::import("torch").attr("Tensor");
  py::object parameter = py::module_::import("torch").attr("nn").attr("Parameter");
  py::object is_neg = tensor.attr("is_neg");
  // Functions without arguments, and what they return where nothing is going on.
  std::array<std::pair<py::object, py::object>, 4> states = {{
      {py::module_::import("torch._C").attr("_is_any_autocast_enabled"), py::bool_(false)},
      {py::module_::import("torch._C").attr("_get_tracing_state"), py::none()},
      {py::module_::import("torch._C").attr("_len_torch_dispatch_stack"), py::int_(0)},
      {py::module_::import("torch._C").attr("_are_functorch_transforms_active"), py::bool_(false)},
  }};
  py::object forward_mode = py::module_::import("torch.autograd.forward_ad").attr("__dict__");
  py::object level = py::str("_current_level"), no_level = py::int_(-1);
  const dlpack::ExchangeApi* api = exchange_api();

 private:
  const dlpack::ExchangeApi* exchange_api() const {
    const py::object capsule = tensor.attr("__dlpack_c_exchange_api__");
    const void* pointer = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
    if (pointer == nullptr) throw py::error_already_set();
    auto* found = static_cast<const dlpack::ExchangeApi*>(pointer);
    while (found != nullptr && found->version.major != dlpack::kMajorVersion) found = found->previous;
    if (found == nullptr || found->view == nullptr)
      throw std::runtime_error("this PyTorch does not offer version 1 of DLPack's C functions");
    return found;
  }
};

const Torch& torch() {
  static const Torch* const instance = new Torch;  // never destroyed: tensors may outlive the interpreter
  return *instance;
}

// Memory of a new tensor, and its description.
struct Buffer {
  static constexpr int kMostDims = 8;

  dlpack::ManagedTensor managed;
  size_t bytes;
  std::array<int64_t, kMostDims> shape, strides;

  static void release(dlpack::ManagedTensor* managed) {
    const std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(managed->owner));
    release_buffer(managed->tensor.data, buffer->bytes);
  }
};

PyObject* new_tensor(dlpack::DataType dtype, std::span<const int64_t> shape) {
  if (shape.size() > Buffer::kMostDims) throw std::invalid_argument("a tensor has too many dimensions");
  auto buffer = std::make_unique<Buffer>();
  int64_t elements = 1;
  std::copy(shape.begin(), shape.end(), buffer->shape.begin());
  for (size_t k = shape.size(); k-- > 0;) {
    buffer->strides[k] = elements;
    elements *= std::max<int64_t>(shape[k], 1);
  }
  buffer->bytes = static_cast<size_t>(elements) * dtype.bits / 8;
  buffer->managed = {.version = {dlpack::kMajorVersion, 0},
                     .owner = buffer.get(),
                     .deleter = &Buffer::release,
                     .flags = 0,
                     .tensor = {.data = acquire_buffer(buffer->bytes),
                                .device = {dlpack::kCpu, 0},
                                .dims = static_cast<int32_t>(shape.size()),
                                .dtype = dtype,
                                .shape = buffer->shape.data(),
                                .strides = buffer->strides.data(),
                                .byte_offset = 0}};
  void* object = nullptr;
  if (torch().api->import_tensor(&buffer.release()->managed, &object) != 0) throw py::error_already_set();
  return static_cast<PyObject*>(object);
}

dlpack::Tensor view_of(PyObject* object, int32_t device_type = dlpack::kCpu) {
  dlpack::Tensor view;
  if (torch().api->view(object, &view) != 0) throw py::error_already_set();
  if (view.device.type != device_type) {
    throw std::invalid_argument(device_type == dlpack::kCpu ? "kernels take tensors on the CPU"
                                                            : "kernels take tensors on a CUDA device");
  }
  view.data = static_cast<char*>(view.data) + view.byte_offset;
  return view;
}

bool is_nothing_going_on() {
  const Torch& t = torch();
  for (const auto& [function, usual] : t.states) {  // small integers, like the others, are there once
    PyObject* const state = PyObject_Vectorcall(function.ptr(), nullptr, 0, nullptr);
    if (state == nullptr) throw py::error_already_set();
    Py_DECREF(state);
    if (state != usual.ptr()) return false;
  }
  return PyDict_GetItemWithError(t.forward_mode.ptr(), t.level.ptr()) == t.no_level.ptr();
}

// False unless it is a dense tensor on the CPU, of no subclass but Parameter, with memory.
bool view_if_ordinary(PyObject* object, dlpack::Tensor& view) {
  const Torch& t = torch();
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (type != t.tensor.ptr() && type != t.parameter.ptr()) return false;
  if (t.api->view(object, &view) != 0) {
    PyErr_Clear();
    return false;
  }
  return view.device.type == dlpack::kCpu;
}

// Bytes, as far as there is room for them.
class Writer {
 public:
  bool write(const void* data, size_t bytes) {
    if (bytes > buffer_.size() - used_) return false;
    std::memcpy(buffer_.data() + used_, data, bytes);
    used_ += bytes;
    return true;
  }

  bool write_kind(char kind) { return write(&kind, 1); }
  PyObject* bytes() const { return PyBytes_FromStringAndSize(buffer_.data(), static_cast<Py_ssize_t>(used_)); }

 private:
  std::array<char, 1024> buffer_;
  size_t used_ = 0;
};

// False if a signature cannot say what the argument is.
bool write_argument(Writer& out, PyObject* argument) {
  if (argument == Py_None) return out.write_kind('n');
  if (PyBool_Check(argument)) return out.write_kind(argument == Py_True ? 'y' : 'f');
  if (PyUnicode_Check(argument)) {
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(argument, &length);
    if (text == nullptr) throw py::error_already_set();
    return out.write_kind('s') && out.write(&length, sizeof length) && out.write(text, static_cast<size_t>(length));
  }
  dlpack::Tensor view;
  return view_if_ordinary(argument, view) && out.write_kind('t') && out.write(&view.dtype, sizeof view.dtype) &&
         out.write(&view.dims, sizeof view.dims) &&
         out.write(view.shape, sizeof *view.shape * static_cast<size_t>(view.dims));
}

}  // namespace

void find_torch() { torch(); }

Tensor::Tensor(PyObject* object, int32_t device_type) : device_type_(device_type) {
  if (object == Py_None) return;
  if (!PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(torch().tensor.ptr())))
    throw py::type_error("kernels take tensors");
  object_ = object;
  view_ = view_of(object, device_type_);
}

bool Tensor::has_no_gaps(int event_dims) const {
  int64_t expected = 1;
  for (int dim = dims(); dim-- > std::max(dims() - event_dims, 0);) {
    if (view_.shape[dim] != 1 && view_.strides[dim] != expected) return false;
    expected *= view_.shape[dim];
  }
  return true;
}

bool Tensor::is_readable(int event_dims) const {
  if (!has_no_gaps(event_dims) || view_.data == nullptr) return false;
  const py::handle negative(PyObject_Vectorcall(torch().is_neg.ptr(), &object_, 1, nullptr));
  if (!negative) throw py::error_already_set();
  negative.dec_ref();  // True and False are immortal in effect: others refer to them
  return negative.ptr() == Py_False;
}

void Tensor::copy() {
  const py::object values = py::reinterpret_borrow<py::object>(object_).attr("resolve_neg")();
  copy_ = values.attr("clone")().attr("contiguous")();
  view_ = view_of(copy_.ptr(), device_type_);
}

PyObject* signature(PyObject* const* arguments, Py_ssize_t count) {
  if (!is_nothing_going_on()) Py_RETURN_NONE;
  Writer out;
  for (Py_ssize_t k = 0; k < count; ++k) {
    if (!write_argument(out, arguments[k])) Py_RETURN_NONE;
  }
  return out.bytes();
}

PyObject* first_element(PyObject* const* arguments, Py_ssize_t count) {
  if (count != 1) throw py::type_error("first_element takes a tensor");
  dlpack::Tensor view;
  if (!view_if_ordinary(arguments[0], view)) Py_RETURN_NONE;
  Tensor tensor(arguments[0]);
  double value = 0;
  with_type_of(tensor, [&]<class T>() {
    const T* const data = tensor.row<T>();
    if (data == nullptr) throw std::invalid_argument("a tensor has no element");
    value = static_cast<double>(*data);
  });
  return PyFloat_FromDouble(value);
}

PyObject* empty(PyObject* const* arguments, Py_ssize_t count) {
  if (count < 1 || count > 1 + Buffer::kMostDims) throw py::type_error("empty takes a tensor and sizes");
  std::array<int64_t, Buffer::kMostDims> shape{};
  const std::span<int64_t> sizes(shape.data(), static_cast<size_t>(count) - 1);
  for (size_t k = 0; k < sizes.size(); ++k) {
    sizes[k] = PyLong_AsLongLong(arguments[k + 1]);
    if (PyErr_Occurred()) throw py::error_already_set();
    if (sizes[k] < 0) throw py::value_error("a size is negative");
  }
  return new_tensor(view_of(arguments[0]).dtype, sizes);
}

PyObject* empty_like(PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) throw py::type_error("empty_like takes tensors, and which are wanted");
  const auto fast = [](PyObject* sequence) {
    PyObject* items = PySequence_Fast(sequence, "empty_like takes sequences");
    if (items == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(items);
  };
  const py::object tensors = fast(arguments[0]), wanted = fast(arguments[1]);
  const Py_ssize_t length = PySequence_Fast_GET_SIZE(tensors.ptr());
  if (PySequence_Fast_GET_SIZE(wanted.ptr()) != length) throw py::value_error("empty_like takes two of one length");
  py::list results(static_cast<size_t>(length));
  for (Py_ssize_t k = 0; k < length; ++k) {
    PyObject* result = Py_None;
    if (PySequence_Fast_GET_ITEM(wanted.ptr(), k) == Py_True) {
      const dlpack::Tensor view = view_of(PySequence_Fast_GET_ITEM(tensors.ptr(), k));
      result = new_tensor(view.dtype, {view.shape, static_cast<size_t>(view.dims)});
    } else {
      Py_INCREF(result);
    }
    PyList_SET_ITEM(results.ptr(), k, result);
  }
  return results.release().ptr();
}

}  // namespace cvf::bindings
