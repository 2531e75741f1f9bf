#include "ops/ancestral_sample/ancestral_sample_cuda.h"

#include "bindings/activation.h"
#include "bindings/cuda_arguments.h"

namespace cvf::bindings {
namespace {

template <class T>
ancestral_sample::Equations<T> equations(const CudaTensor& z, CudaTensor& jac, CudaTensor& quadratic,
                                         CudaTensor& do_mask) {
  return {.batch = z.size(0),
          .d = z.size(1),
          .jac = jac.rows<T>(2),
          .quadratic = quadratic.rows<T>(2),
          .shared_jac = jac.dims() == 2,
          .do_mask = do_mask.mask_rows(1)};
}

void ancestral_sample_forward(CudaTensor noise, CudaTensor jac, CudaTensor quadratic, CudaTensor offset,
                              CudaTensor do_mask, CudaTensor do_values, CudaTensor z, int device, int64_t stream) {
  with_type_of(noise, [&]<class T>() {
    ancestral_sample::cuda::forward<T>(
        {
            .equations = equations<T>(z, jac, quadratic, do_mask),
            .noise = noise.rows<T>(1),
            .offset = offset.row<T>(),
            .do_values = do_values.rows<T>(1),
            .z = z.output<T>(),
        },
        place_of(device, stream));
  });
}

void ancestral_sample_backward(CudaTensor jac, CudaTensor quadratic, CudaTensor do_mask, CudaTensor do_values,
                               CudaTensor z, CudaTensor upstream, CudaTensor grad_noise, CudaTensor grad_jac,
                               CudaTensor grad_quadratic, CudaTensor grad_offset, CudaTensor grad_values, int device,
                               int64_t stream) {
  with_type_of(z, [&]<class T>() {
    const ancestral_sample::Backward<T> arguments{
        .equations = equations<T>(z, jac, quadratic, do_mask),
        .z = z.rows<T>(1),
        .upstream = upstream.rows<T>(1),
        .shared_values = do_values.dims() == 1,
        .grad_noise = grad_noise.output<T>(),
        .grad_jac = grad_jac.output<T>(),
        .grad_quadratic = grad_quadratic.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_values = grad_values.output<T>(),
    };
    const Scratch<T> scratch(z, ancestral_sample::cuda::backward_scratch(arguments));
    ancestral_sample::cuda::backward(arguments, scratch.data(), place_of(device, stream));
  });
}

template <class T>
ancestral_sample::mlp::Equations<T> mlp_equations(const CudaTensor& z, std::string_view activation, CudaTensor& w_in,
                                                  CudaTensor& b_in, CudaTensor& w_out, CudaTensor& b_out,
                                                  CudaTensor& edges, CudaTensor& do_mask) {
  return {.batch = z.size(0),
          .d = z.size(1),
          .hidden = w_in.size(1),
          .activation = activation_named(activation),
          .w_in = w_in.row<T>(),
          .b_in = b_in.row<T>(),
          .w_out = w_out.row<T>(),
          .b_out = b_out.row<T>(),
          .edges = edges.row<T>(),
          .do_mask = do_mask.mask_rows(1)};
}

void mlp_ancestral_sample_forward(std::string_view activation, CudaTensor noise, CudaTensor w_in, CudaTensor b_in,
                                  CudaTensor w_out, CudaTensor b_out, CudaTensor edges, CudaTensor do_mask,
                                  CudaTensor do_values, CudaTensor z, int device, int64_t stream) {
  with_type_of(noise, [&]<class T>() {
    const ancestral_sample::mlp::Forward<T> arguments{
        .equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
        .noise = noise.rows<T>(1),
        .do_values = do_values.rows<T>(1),
        .z = z.output<T>(),
    };
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
    const ancestral_sample::mlp::Backward<T> arguments{
        .equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
        .z = z.rows<T>(1),
        .upstream = upstream.rows<T>(1),
        .shared_values = do_values.dims() == 1,
        .grad_noise = grad_noise.output<T>(),
        .grad_w_in = grad_w_in.output<T>(),
        .grad_b_in = grad_b_in.output<T>(),
        .grad_w_out = grad_w_out.output<T>(),
        .grad_b_out = grad_b_out.output<T>(),
        .grad_edges = grad_edges.output<T>(),
        .grad_values = grad_values.output<T>(),
    };
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
