#include "ops/ancestral_sample/ancestral_sample_cuda.h"

#include "bindings/cuda_arguments.h"
#include "bindings/ops/ancestral_sample.h"

namespace cvf::bindings {
namespace {

void ancestral_sample_forward(CudaTensor noise, CudaTensor jac, CudaTensor quadratic, CudaTensor offset,
                              CudaTensor do_mask, CudaTensor do_values, CudaTensor z, int device, int64_t stream) {
  with_type_of(noise, [&]<class T>() {
    ancestral_sample::cuda::forward(
        ancestral_forward_arguments<T>(noise, jac, quadratic, offset, do_mask, do_values, z), place_of(device, stream));
  });
}

void ancestral_sample_backward(CudaTensor jac, CudaTensor quadratic, CudaTensor do_mask, CudaTensor do_values,
                               CudaTensor z, CudaTensor upstream, CudaTensor grad_noise, CudaTensor grad_jac,
                               CudaTensor grad_quadratic, CudaTensor grad_offset, CudaTensor grad_values, int device,
                               int64_t stream) {
  with_type_of(z, [&]<class T>() {
    const auto arguments = ancestral_backward_arguments<T>(jac, quadratic, do_mask, do_values, z, upstream, grad_noise,
                                                           grad_jac, grad_quadratic, grad_offset, grad_values);
    const Scratch<T> scratch(z, ancestral_sample::cuda::backward_scratch(arguments));
    ancestral_sample::cuda::backward(arguments, scratch.data(), place_of(device, stream));
  });
}

void mlp_ancestral_sample_forward(std::string_view activation, CudaTensor noise, CudaTensor w_in, CudaTensor b_in,
                                  CudaTensor w_out, CudaTensor b_out, CudaTensor edges, CudaTensor do_mask,
                                  CudaTensor do_values, CudaTensor z, int device, int64_t stream) {
  with_type_of(noise, [&]<class T>() {
    const auto arguments =
        mlp_forward_arguments<T>(activation, noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values, z);
    const Scratch<T> scratch(noise, ancestral_sample::mlp::cuda::forward_scratch(arguments));
    ancestral_sample::mlp::cuda::forward(arguments, scratch.data(), place_of(device, stream));
  });
}

void mlp_ancestral_sample_backward(std::string_view activation, CudaTensor w_in, CudaTensor b_in, CudaTensor w_out,
                                   CudaTensor b_out, CudaTensor edges, CudaTensor do_mask, CudaTensor do_values,
                                   CudaTensor z, CudaTensor upstream, CudaTensor grad_noise, CudaTensor grad_w_in,
                                   CudaTensor grad_b_in, CudaTensor grad_w_out, CudaTensor grad_b_out,
                                   CudaTensor grad_edges, CudaTensor grad_values, int device, int64_t stream) {
  with_type_of(z, [&]<class T>() {
    const auto arguments =
        mlp_backward_arguments<T>(activation, w_in, b_in, w_out, b_out, edges, do_mask, do_values, z, upstream,
                                  grad_noise, grad_w_in, grad_b_in, grad_w_out, grad_b_out, grad_edges, grad_values);
    const Scratch<T> scratch(z, ancestral_sample::mlp::cuda::backward_scratch(arguments));
    ancestral_sample::mlp::cuda::backward(arguments, scratch.data(), place_of(device, stream));
  });
}

}  // namespace

void bind_ancestral_sample_cuda(pybind11::module_& module) {
  define<&ancestral_sample_forward>(module, "ancestral_sample");
  define<&ancestral_sample_backward>(module, "ancestral_sample_backward");
  define<&mlp_ancestral_sample_forward>(module, "mlp_ancestral_sample");
  define<&mlp_ancestral_sample_backward>(module, "mlp_ancestral_sample_backward");
}

}  // namespace cvf::bindings
