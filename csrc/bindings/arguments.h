// What the bindings of all ops share: how Python calls them, and the choice of an instruction set.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "bindings/tensor.h"
#include "common/batched.h"
#include "common/isa.h"

namespace cvf::bindings {

// The best one for an empty name.
inline Isa isa_named(std::string_view name) {
  if (name.empty()) {
    static const Isa best = best_isa();
    return best;
  }
  for (const Isa isa : kAllIsas) {
    if (name == isa_name(isa)) {
      if (!isa_available(isa))
        throw std::invalid_argument("isa '" + std::string(name) + "' is not available on this machine");
      return isa;
    }
  }
  throw std::invalid_argument("isa must be baseline, avx2 or avx512, got '" + std::string(name) + "'");
}

// An argument as C++ has it: a Tensor or CudaTensor, bool, int, int64_t, double or string_view.
template <class T>
T argument(PyObject* object) {
  if constexpr (std::is_base_of_v<Tensor, T>) {
    return T(object);
  } else if constexpr (std::is_same_v<T, bool>) {
    return object == Py_True;
  } else if constexpr (std::is_same_v<T, int>) {
    const long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred()) throw pybind11::error_already_set();
    return static_cast<int>(value);
  } else if constexpr (std::is_same_v<T, int64_t>) {
    const int64_t value = PyLong_AsLongLong(object);
    if (value == -1 && PyErr_Occurred()) throw pybind11::error_already_set();
    return value;
  } else if constexpr (std::is_same_v<T, double>) {
    const double value = PyFloat_AsDouble(object);
    if (value == -1 && PyErr_Occurred()) throw pybind11::error_already_set();
    return value;
  } else {
    static_assert(std::is_same_v<T, std::string_view>);
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == nullptr) throw pybind11::error_already_set();
    return {text, static_cast<size_t>(length)};
  }
}

// Calls a function of C++ with arguments of Python; the result is None.
template <class... Arguments, size_t... places>
void call(void (*function)(Arguments...), PyObject* const* arguments, std::index_sequence<places...>) {
  function(argument<Arguments>(arguments[places])...);
}

template <class... Arguments>
PyObject* call(void (*function)(Arguments...), PyObject* const* arguments, Py_ssize_t count) {
  if (count != sizeof...(Arguments)) throw pybind11::type_error("a kernel is called with too few or many arguments");
  call(function, arguments, std::index_sequence_for<Arguments...>());
  Py_RETURN_NONE;
}

// A function that looks at the arguments itself.
inline PyObject* call(PyObject* (*function)(PyObject* const*, Py_ssize_t), PyObject* const* arguments,
                      Py_ssize_t count) {
  return function(arguments, count);
}

// Adds a function to the module, by Python's fast calls: pybind11 takes a microsecond to convert twenty arguments.
template <auto function>
void define(pybind11::module_& module, const char* name) {
  constexpr auto called = [](PyObject*, PyObject* const* arguments, Py_ssize_t count) -> PyObject* {
    try {
      return call(function, arguments, count);
    } catch (pybind11::error_already_set& error) {
      error.restore();
    } catch (const pybind11::builtin_exception& error) {
      error.set_error();
    } catch (const std::invalid_argument& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::bad_alloc& error) {
      PyErr_SetString(PyExc_MemoryError, error.what());
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
  };
  PyObject* (*const pointer)(PyObject*, PyObject* const*, Py_ssize_t) = called;
  static PyMethodDef definition{name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(pointer)),
                                METH_FASTCALL, nullptr};
  PyObject* object = PyCFunction_NewEx(&definition, nullptr, nullptr);
  if (object == nullptr) throw pybind11::error_already_set();
  module.add_object(name, pybind11::reinterpret_steal<pybind11::object>(object));
}

// Each op adds its functions to the module: csrc/bindings/ops/<op>.cpp.
void bind_ancestral_sample(pybind11::module_& module);
void bind_propagate(pybind11::module_& module);
void bind_gaussian_kl(pybind11::module_& module);
void bind_mlp_sem_kl(pybind11::module_& module);
void bind_pivot_kl(pybind11::module_& module);
void bind_sem_kl(pybind11::module_& module);

}  // namespace cvf::bindings
