// The CPU module: raw addresses, sizes and strides in, nothing of torch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "build_info.h"
#include "common/buffer_pool.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "ops/sem_kl/sem_kl.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;                            // of a tensor's first element; 0 where there is none
using StridedAddress = std::tuple<Address, int64_t>;  // and the stride of the batch, in elements

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class T>
cvf::Batched<T> batched(const StridedAddress& input) {
  return {pointer<const T>(std::get<0>(input)), std::get<1>(input)};
}

cvf::Isa isa_named(const std::string& name) {
  if (name.empty()) {
    static const cvf::Isa best = cvf::best_isa();
    return best;
  }
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (name == cvf::isa_name(isa)) {
      if (!cvf::isa_available(isa)) throw std::invalid_argument("isa '" + name + "' is not available on this machine");
      return isa;
    }
  }
  throw std::invalid_argument("isa must be baseline, avx2 or avx512, got '" + name + "'");
}

template <class T>
void sem_kl(int64_t batch, int64_t d, const StridedAddress& jac, bool shared_jac, const StridedAddress& offset,
            bool shared_offset, Address log_sigma, const StridedAddress& loc, const StridedAddress& scale,
            const StridedAddress& scale_tril, const StridedAddress& upstream, Address value, Address grad_jac,
            Address grad_offset, Address grad_log_sigma, Address grad_loc, Address grad_scale, Address grad_scale_tril,
            int threads, const std::string& isa) {
  const cvf::sem_kl::Arguments<T> arguments{
      .batch = batch,
      .d = d,
      .jac = batched<T>(jac),
      .offset = batched<T>(offset),
      .log_sigma = pointer<const T>(log_sigma),
      .loc = batched<T>(loc),
      .scale = batched<T>(scale),
      .scale_tril = batched<T>(scale_tril),
      .upstream = batched<T>(upstream),
      .shared_jac = shared_jac,
      .shared_offset = shared_offset,
      .value = pointer<T>(value),
      .grad_jac = pointer<T>(grad_jac),
      .grad_offset = pointer<T>(grad_offset),
      .grad_log_sigma = pointer<T>(grad_log_sigma),
      .grad_loc = pointer<T>(grad_loc),
      .grad_scale = pointer<T>(grad_scale),
      .grad_scale_tril = pointer<T>(grad_scale_tril),
  };
  const bool has_memory = arguments.jac && arguments.offset && arguments.log_sigma && arguments.loc &&
                          (arguments.scale || arguments.scale_tril);
  if (batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
  const cvf::Isa chosen = isa_named(isa);
  py::gil_scoped_release release;
  cvf::sem_kl::run<T>(arguments, threads, chosen);
}

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
  module.def("sem_kl_float32", &sem_kl<float>);
  module.def("sem_kl_float64", &sem_kl<double>);
  module.def("empty_float32", &empty<float>);
  module.def("empty_float64", &empty<double>);
  module.def("cached_bytes", &cvf::cached_bytes, "Bytes of freed buffers that are kept for the next call.");
  module.def("release_cached_buffers", &cvf::release_cached_buffers, "Returns them to the system.");
  module.def("isas", &isas, "Instruction sets that can be used here, best last.");
  module.def("build_info", &build_info, "What the library was built with.");
}
