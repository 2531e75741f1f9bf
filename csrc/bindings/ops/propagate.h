// What the kernels of propagate take, from tensors on any device.
#pragma once

#include "bindings/tensor.h"
#include "ops/propagate/propagate.h"

namespace cvf::bindings {

template <class T>
propagate::Forward<T> propagate_forward_arguments(Tensor& jac, Tensor& offset, Tensor& log_sigma, const Tensor& loc,
                                                  const Tensor& scale_tril) {
  return {.batch = loc.dims() == 2 ? loc.size(0) : 1,
          .d = log_sigma.size(0),
          .jac = jac.rows<T>(2),
          .offset = offset.rows<T>(1),
          .log_sigma = log_sigma.row<T>(),
          .shared_jac = jac.dims() == 2,
          .loc = loc.output<T>(),
          .scale_tril = scale_tril.output<T>()};
}

template <class T>
propagate::Backward<T> propagate_backward_arguments(Tensor& jac, const Tensor& offset, Tensor& log_sigma, Tensor& loc,
                                                    Tensor& scale_tril, Tensor& upstream_loc,
                                                    Tensor& upstream_scale_tril, const Tensor& grad_jac,
                                                    const Tensor& grad_offset, const Tensor& grad_log_sigma) {
  return {.batch = loc.dims() == 2 ? loc.size(0) : 1,
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
          .grad_log_sigma = grad_log_sigma.output<T>()};
}

}  // namespace cvf::bindings
