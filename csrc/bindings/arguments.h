// What the bindings of all ops share: addresses of tensors, and the choice of an instruction set.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "common/batched.h"
#include "common/isa.h"

namespace cvf::bindings {

using Address = uintptr_t;                            // of a tensor's first element; 0 where there is none
using StridedAddress = std::tuple<Address, int64_t>;  // and the stride of the batch, in elements

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class T>
Batched<T> batched(const StridedAddress& input) {
  return {pointer<const T>(std::get<0>(input)), std::get<1>(input)};
}

// The best one for an empty name.
inline Isa isa_named(const std::string& name) {
  if (name.empty()) {
    static const Isa best = best_isa();
    return best;
  }
  for (const Isa isa : kAllIsas) {
    if (name == isa_name(isa)) {
      if (!isa_available(isa)) throw std::invalid_argument("isa '" + name + "' is not available on this machine");
      return isa;
    }
  }
  throw std::invalid_argument("isa must be baseline, avx2 or avx512, got '" + name + "'");
}

// Each op adds its functions, one for each dtype, to the module: csrc/bindings/ops/<op>.cpp.
void bind_ancestral_sample(pybind11::module_& module);
void bind_propagate(pybind11::module_& module);
void bind_gaussian_kl(pybind11::module_& module);
void bind_pivot_kl(pybind11::module_& module);
void bind_sem_kl(pybind11::module_& module);

}  // namespace cvf::bindings
