// KL divergence of Gaussians q = N(loc_q, L_q L_q^T) from Gaussians p = N(loc_p, L_p L_p^T), with its gradients.
//
//   N = L_p^-1 L_q,   u = L_p^-1 (loc_q - loc_p)
//   KL = 1/2 (|N|_F^2 + |u|^2 - d) + sum_i log L_p,ii - sum_i log L_q,ii
//
// The derivation of the gradients is in causalvae_fast/ops/gaussian_kl/README.md.
#pragma once

#include <cstdint>

#include "common/batched.h"
#include "common/isa.h"

namespace cvf::gaussian_kl {

// An output that is null is not computed. Outputs have no gaps; what p shares among the batch gets one gradient,
// summed over it. Matrices are read on and below the diagonal only. A covariance matrix that is not positive
// definite gives NaN for its sample.
template <class T>
struct Arguments {
  int64_t batch = 0;  // B
  int64_t d = 0;

  Batched<T> loc_q;     // (B, d)
  Batched<T> loc_p;     // (B, d) or (d,)
  Batched<T> matrix_q;  // (B, d, d): L_q, or L_q L_q^T
  Batched<T> matrix_p;  // (B, d, d) or (d, d): L_p, or L_p L_p^T
  Batched<T> upstream;  // (B,) or one number: the gradient of the loss with respect to each KL
  bool covariance_q = false;
  bool covariance_p = false;
  bool shared_loc_p = false;
  bool shared_matrix_p = false;

  T* value = nullptr;          // (B,)
  T* grad_loc_q = nullptr;     // (B, d)
  T* grad_loc_p = nullptr;     // like loc_p
  T* grad_matrix_q = nullptr;  // (B, d, d): lower triangular of a factor, symmetric of a covariance matrix
  T* grad_matrix_p = nullptr;  // like matrix_p, the same

  constexpr bool wants_gradient() const { return grad_loc_q || grad_loc_p || grad_matrix_q || grad_matrix_p; }
};

// Computes every output that is not null, on at most `threads` threads, with the kernels of one instruction set.
template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa = best_isa());

}  // namespace cvf::gaussian_kl
