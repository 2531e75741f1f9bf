// What the kernels of ancestral_sample take, from tensors on any device.
#pragma once

#include "bindings/activation.h"
#include "bindings/tensor.h"
#include "ops/ancestral_sample/ancestral_sample.h"
#include "ops/ancestral_sample/mlp.h"

namespace cvf::bindings {

template <class T>
ancestral_sample::Equations<T> equations(const Tensor& z, Tensor& jac, Tensor& quadratic, Tensor& do_mask) {
  return {.batch = z.size(0),
          .d = z.size(1),
          .jac = jac.rows<T>(2),
          .quadratic = quadratic.rows<T>(2),
          .shared_jac = jac.dims() == 2,
          .do_mask = do_mask.mask_rows(1)};
}

template <class T>
ancestral_sample::Forward<T> ancestral_forward_arguments(Tensor& noise, Tensor& jac, Tensor& quadratic, Tensor& offset,
                                                         Tensor& do_mask, Tensor& do_values, const Tensor& z) {
  return {.equations = equations<T>(z, jac, quadratic, do_mask),
          .noise = noise.rows<T>(1),
          .offset = offset.row<T>(),
          .do_values = do_values.rows<T>(1),
          .z = z.output<T>()};
}

// The gradients that are wanted, shaped as the inputs.
template <class T>
ancestral_sample::Backward<T> ancestral_backward_arguments(Tensor& jac, Tensor& quadratic, Tensor& do_mask,
                                                           const Tensor& do_values, Tensor& z, Tensor& upstream,
                                                           const Tensor& grad_noise, const Tensor& grad_jac,
                                                           const Tensor& grad_quadratic, const Tensor& grad_offset,
                                                           const Tensor& grad_values) {
  return {.equations = equations<T>(z, jac, quadratic, do_mask),
          .z = z.rows<T>(1),
          .upstream = upstream.rows<T>(1),
          .shared_values = do_values.dims() == 1,
          .grad_noise = grad_noise.output<T>(),
          .grad_jac = grad_jac.output<T>(),
          .grad_quadratic = grad_quadratic.output<T>(),
          .grad_offset = grad_offset.output<T>(),
          .grad_values = grad_values.output<T>()};
}

template <class T>
ancestral_sample::mlp::Equations<T> mlp_equations(const Tensor& z, std::string_view activation, Tensor& w_in,
                                                  Tensor& b_in, Tensor& w_out, Tensor& b_out, Tensor& edges,
                                                  Tensor& do_mask) {
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

template <class T>
ancestral_sample::mlp::Forward<T> mlp_forward_arguments(std::string_view activation, Tensor& noise, Tensor& w_in,
                                                        Tensor& b_in, Tensor& w_out, Tensor& b_out, Tensor& edges,
                                                        Tensor& do_mask, Tensor& do_values, const Tensor& z) {
  return {.equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
          .noise = noise.rows<T>(1),
          .do_values = do_values.rows<T>(1),
          .z = z.output<T>()};
}

// The gradients that are wanted, shaped as the inputs.
template <class T>
ancestral_sample::mlp::Backward<T> mlp_backward_arguments(std::string_view activation, Tensor& w_in, Tensor& b_in,
                                                          Tensor& w_out, Tensor& b_out, Tensor& edges, Tensor& do_mask,
                                                          const Tensor& do_values, Tensor& z, Tensor& upstream,
                                                          const Tensor& grad_noise, const Tensor& grad_w_in,
                                                          const Tensor& grad_b_in, const Tensor& grad_w_out,
                                                          const Tensor& grad_b_out, const Tensor& grad_edges,
                                                          const Tensor& grad_values) {
  return {.equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
          .z = z.rows<T>(1),
          .upstream = upstream.rows<T>(1),
          .shared_values = do_values.dims() == 1,
          .grad_noise = grad_noise.output<T>(),
          .grad_w_in = grad_w_in.output<T>(),
          .grad_b_in = grad_b_in.output<T>(),
          .grad_w_out = grad_w_out.output<T>(),
          .grad_b_out = grad_b_out.output<T>(),
          .grad_edges = grad_edges.output<T>(),
          .grad_values = grad_values.output<T>()};
}

}  // namespace cvf::bindings
