// What the kernels of gaussian_kl take, from tensors on any device.
#pragma once

#include "bindings/tensor.h"
#include "ops/gaussian_kl/gaussian_kl.h"

namespace cvf::bindings {

template <class T>
cvf::gaussian_kl::Arguments<T> gaussian_kl_arguments(Tensor& loc_q, Tensor& loc_p, Tensor& matrix_q, Tensor& matrix_p,
                                                     bool covariance_q, bool covariance_p, Tensor& upstream,
                                                     const Tensor& value, const Tensor& grad_loc_q,
                                                     const Tensor& grad_loc_p, const Tensor& grad_matrix_q,
                                                     const Tensor& grad_matrix_p) {
  return {.batch = loc_q.size(0),
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
          .grad_matrix_p = grad_matrix_p.output<T>()};
}

}  // namespace cvf::bindings
