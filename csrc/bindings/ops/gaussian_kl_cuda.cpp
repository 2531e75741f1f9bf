#include "ops/gaussian_kl/gaussian_kl_cuda.h"

#include "bindings/cuda_arguments.h"

namespace cvf::bindings {
namespace {

// The value, and the gradients that are wanted, which are shaped as the inputs.
void gaussian_kl_on_device(CudaTensor loc_q, CudaTensor loc_p, CudaTensor matrix_q, CudaTensor matrix_p,
                           bool covariance_q, bool covariance_p, CudaTensor upstream, CudaTensor value,
                           CudaTensor grad_loc_q, CudaTensor grad_loc_p, CudaTensor grad_matrix_q,
                           CudaTensor grad_matrix_p, int device, int64_t stream) {
  with_type_of(loc_q, [&]<class T>() {
    const cvf::gaussian_kl::Arguments<T> arguments{
        .batch = loc_q.size(0),
        .d = loc_q.size(1),
        .loc_q = loc_q.rows<T>(1),
        .loc_p = loc_p.rows<T>(1),
        .matrix_q = matrix_q.rows<T>(2),
        .matrix_p = matrix_p.rows<T>(2),
        .upstream = upstream.rows<T>(0),
        .covariance_q = covariance_q,
        .covariance_p = covariance_p,
        .shared_loc_p = loc_p.dims() == 1,
        .shared_matrix_p = matrix_p.dims() == 2,
        .value = value.output<T>(),
        .grad_loc_q = grad_loc_q.output<T>(),
        .grad_loc_p = grad_loc_p.output<T>(),
        .grad_matrix_q = grad_matrix_q.output<T>(),
        .grad_matrix_p = grad_matrix_p.output<T>(),
    };
    const Scratch<T> scratch(loc_q, cvf::gaussian_kl::cuda::scratch(arguments));
    cvf::gaussian_kl::cuda::run(arguments, scratch.data(), place_of(device, stream));
  });
}

}  // namespace

void bind_gaussian_kl_cuda(pybind11::module_& module) { define<&gaussian_kl_on_device>(module, "gaussian_kl"); }

}  // namespace cvf::bindings
