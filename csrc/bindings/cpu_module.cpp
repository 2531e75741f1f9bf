// The CPU module: raw addresses, sizes and strides in, nothing of torch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "build_info.h"
#include "common/buffer_pool.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace py = pybind11;

namespace {

// An uninitialised array whose memory goes back to the pool when its last user lets go of it.
template <class T>
py::array_t<T> empty(const std::vector<py::ssize_t>& shape) {
  struct Buffer {
    void* data;
    size_t bytes;
  };
  size_t bytes = sizeof(T);
  for (const py::ssize_t size : shape) bytes *= static_cast<size_t>(size);
  std::unique_ptr<Buffer> buffer(new Buffer{cvf::acquire_buffer(bytes), bytes});
  const T* data = static_cast<const T*>(buffer->data);
  const py::capsule owner(buffer.release(), [](void* pointer) {
    const std::unique_ptr<Buffer> held(static_cast<Buffer*>(pointer));
    cvf::release_buffer(held->data, held->bytes);
  });
  return py::array_t<T>(shape, data, owner);
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (cvf::isa_available(isa)) names.emplace_back(cvf::isa_name(isa));
  }
  return names;
}

std::map<std::string, std::string> build_info() {
  return {{"compiler", CVF_BUILD_COMPILER},
          {"built_isas", CVF_BUILD_ISAS},
          {"openmp", cvf::has_openmp() ? "yes" : "no"},
          {"cuda", CVF_BUILD_CUDA}};
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "Compiled kernels of causalvae_fast for the CPU. Call them through causalvae_fast.ops.";
  cvf::bindings::bind_ancestral_sample(module);
  cvf::bindings::bind_propagate(module);
  cvf::bindings::bind_gaussian_kl(module);
  cvf::bindings::bind_pivot_kl(module);
  cvf::bindings::bind_sem_kl(module);
  module.def("empty_float32", &empty<float>);
  module.def("empty_float64", &empty<double>);
  module.def("cached_bytes", &cvf::cached_bytes, "Bytes of freed buffers that are kept for the next call.");
  module.def("release_cached_buffers", &cvf::release_cached_buffers, "Returns them to the system.");
  module.def("isas", &isas, "Instruction sets that can be used here, best last.");
  module.def("build_info", &build_info, "What the library was built with.");
}
