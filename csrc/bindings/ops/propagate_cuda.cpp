#include "ops/propagate/propagate_cuda.h"

#include "bindings/cuda_arguments.h"

namespace cvf::bindings {
namespace {

void propagate_forward(CudaTensor jac, CudaTensor offset, CudaTensor log_sigma, CudaTensor loc, CudaTensor scale_tril,
                       int device, int64_t stream) {
  with_type_of(jac, [&]<class T>() {
    propagate::cuda::forward<T>(
        {
            .batch = loc.dims() == 2 ? loc.size(0) : 1,
            .d = log_sigma.size(0),
            .jac = jac.rows<T>(2),
            .offset = offset.rows<T>(1),
            .log_sigma = log_sigma.row<T>(),
            .shared_jac = jac.dims() == 2,
            .loc = loc.output<T>(),
            .scale_tril = scale_tril.output<T>(),
        },
        place_of(device, stream));
  });
}

void propagate_backward(CudaTensor jac, CudaTensor offset, CudaTensor log_sigma, CudaTensor loc, CudaTensor scale_tril,
                        CudaTensor upstream_loc, CudaTensor upstream_scale_tril, CudaTensor grad_jac,
                        CudaTensor grad_offset, CudaTensor grad_log_sigma, int device, int64_t stream) {
  with_type_of(jac, [&]<class T>() {
    const propagate::Backward<T> arguments{
        .batch = loc.dims() == 2 ? loc.size(0) : 1,
        .d = log_sigma.size(0),
        .jac = jac.rows<T>(2),
        .log_sigma = log_sigma.row<T>(),
        .loc = loc.rows<T>(1),
        .scale_tril = scale_tril.rows<T>(2),
        .upstream_loc = upstream_loc.rows<T>(1),
        .upstream_scale_tril = upstream_scale_tril.rows<T>(2),
        .shared_jac = jac.dims() == 2,
        .shared_offset = offset.dims() == 1,
        .grad_jac = grad_jac.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_log_sigma = grad_log_sigma.output<T>(),
    };
    const Scratch<T> scratch(jac, propagate::cuda::backward_scratch(arguments));
    propagate::cuda::backward(arguments, scratch.data(), place_of(device, stream));
  });
}

}  // namespace

void bind_propagate_cuda(pybind11::module_& module) {
  define<&propagate_forward>(module, "propagate");
  define<&propagate_backward>(module, "propagate_backward");
}

}  // namespace cvf::bindings
