#include "ops/propagate/propagate_cuda.h"

#include "bindings/cuda_arguments.h"
#include "bindings/ops/propagate.h"

namespace cvf::bindings {
namespace {

void propagate_forward(CudaTensor jac, CudaTensor offset, CudaTensor log_sigma, CudaTensor loc, CudaTensor scale_tril,
                       int device, int64_t stream) {
  with_type_of(jac, [&]<class T>() {
    propagate::cuda::forward(propagate_forward_arguments<T>(jac, offset, log_sigma, loc, scale_tril),
                             place_of(device, stream));
  });
}

void propagate_backward(CudaTensor jac, CudaTensor offset, CudaTensor log_sigma, CudaTensor loc, CudaTensor scale_tril,
                        CudaTensor upstream_loc, CudaTensor upstream_scale_tril, CudaTensor grad_jac,
                        CudaTensor grad_offset, CudaTensor grad_log_sigma, int device, int64_t stream) {
  with_type_of(jac, [&]<class T>() {
    const auto arguments = propagate_backward_arguments<T>(jac, offset, log_sigma, loc, scale_tril, upstream_loc,
                                                           upstream_scale_tril, grad_jac, grad_offset, grad_log_sigma);
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
