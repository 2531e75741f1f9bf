#include "ops/gaussian_kl/gaussian_kl_cuda.h"

#include "bindings/cuda_arguments.h"
#include "bindings/ops/gaussian_kl.h"

namespace cvf::bindings {
namespace {

// The value, and the gradients that are wanted, which are shaped as the inputs.
void gaussian_kl_on_device(CudaTensor loc_q, CudaTensor loc_p, CudaTensor matrix_q, CudaTensor matrix_p,
                           bool covariance_q, bool covariance_p, CudaTensor upstream, CudaTensor value,
                           CudaTensor grad_loc_q, CudaTensor grad_loc_p, CudaTensor grad_matrix_q,
                           CudaTensor grad_matrix_p, int device, int64_t stream) {
  with_type_of(loc_q, [&]<class T>() {
    const auto arguments =
        gaussian_kl_arguments<T>(loc_q, loc_p, matrix_q, matrix_p, covariance_q, covariance_p, upstream, value,
                                 grad_loc_q, grad_loc_p, grad_matrix_q, grad_matrix_p);
    const Scratch<T> scratch(loc_q, cvf::gaussian_kl::cuda::scratch(arguments));
    cvf::gaussian_kl::cuda::run(arguments, scratch.data(), place_of(device, stream));
  });
}

}  // namespace

void bind_gaussian_kl_cuda(pybind11::module_& module) { define<&gaussian_kl_on_device>(module, "gaussian_kl"); }

}  // namespace cvf::bindings
