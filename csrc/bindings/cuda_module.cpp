// The CUDA module: what the runtime sees, and kernels for tensors on CUDA devices. It does not link torch.

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/cuda_arguments.h"

namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

int runtime_version() {
  int version = 0;
  check(cudaRuntimeGetVersion(&version));
  return version;
}

// 0 where no driver is installed.
int driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version));
  return version;
}

std::vector<std::string> devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count));
  std::vector<std::string> names;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device));
    names.emplace_back(properties.name);
  }
  return names;
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "Compiled kernels of causalvae_fast for CUDA devices. Call them through causalvae_fast.ops.";
  cvf::bindings::find_torch();
  cvf::bindings::bind_ancestral_sample_cuda(module);
  cvf::bindings::bind_propagate_cuda(module);
  cvf::bindings::bind_gaussian_kl_cuda(module);
  module.def("runtime_version", &runtime_version, "CUDA runtime that was linked, as 1000 * major + 10 * minor.");
  module.def("driver_version", &driver_version, "Newest CUDA that the driver supports; 0 without a driver.");
  module.def("devices", &devices, "Names of the devices. RuntimeError, with the cause, if they cannot be used.");
}
