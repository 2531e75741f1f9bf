// The CPU module: tensors in, by DLPack's C functions; it does not link torch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/tensor.h"
#include "build_info.h"
#include "common/buffer_pool.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace py = pybind11;

namespace {

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
  cvf::bindings::find_torch();
  cvf::bindings::bind_ancestral_sample(module);
  cvf::bindings::bind_propagate(module);
  cvf::bindings::bind_gaussian_kl(module);
  cvf::bindings::bind_mlp_sem_kl(module);
  cvf::bindings::bind_pivot_kl(module);
  cvf::bindings::bind_sem_kl(module);
  cvf::bindings::define<&cvf::bindings::signature>(module, "signature");
  cvf::bindings::define<&cvf::bindings::first_element>(module, "first_element");
  cvf::bindings::define<&cvf::bindings::empty>(module, "empty");
  cvf::bindings::define<&cvf::bindings::empty_like>(module, "empty_like");
  module.def("cached_bytes", &cvf::cached_bytes, "Bytes of freed buffers that are kept for the next call.");
  module.def("release_cached_buffers", &cvf::release_cached_buffers, "Returns them to the system.");
  module.def("isas", &isas, "Instruction sets that can be used here, best last.");
  module.def("build_info", &build_info, "What the library was built with.");
}
