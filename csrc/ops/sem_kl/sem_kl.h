// KL divergence of Gaussian posteriors from a linear structural equation model, with its gradients.
//
//   W = I - A,   D = diag(sigma^2),   M = W L,   r = W loc - b
//   KL = 1/2 (|D^-1/2 M|_F^2 + |D^-1/2 r|^2 - d) + sum_i log sigma_i - sum_i log L_ii
//
// The derivation of the gradients is in causalvae_fast/ops/sem_kl/README.md.
#pragma once

#include <cstdint>

#include "common/batched.h"
#include "common/isa.h"
#include "common/triangle.h"

namespace cvf::sem_kl {

// Exactly one of scale and scale_tril is given. An output that is null is not computed. Outputs have no gaps; a
// shared jac or offset gets one gradient, summed over the batch.
template <class T>
struct Arguments {
  int64_t batch = 0;  // B
  int64_t d = 0;

  Batched<T> jac;                // (B, d, d) or (d, d), or packed: A, read below the diagonal only
  Batched<T> offset;             // (B, d) or (d,): b
  const T* log_sigma = nullptr;  // (d,)
  Batched<T> loc;                // (B, d)
  Batched<T> scale;              // (B, d): diagonal posterior, L = diag(scale)
  Batched<T> scale_tril;         // (B, d, d), or packed: full posterior, L read on and below the diagonal only
  Batched<T> upstream;           // (B,) or one number: the gradient of the loss with respect to each KL
  bool packed_jac = false;
  bool packed_scale_tril = false;
  bool shared_jac = false;
  bool shared_offset = false;

  T* value = nullptr;            // (B,)
  T* total = nullptr;            // one number: sum_b upstream_b KL_b, whose gradients the others are
  T* grad_jac = nullptr;         // like jac
  T* grad_offset = nullptr;      // like offset
  T* grad_log_sigma = nullptr;   // (d,)
  T* grad_loc = nullptr;         // (B, d)
  T* grad_scale = nullptr;       // (B, d)
  T* grad_scale_tril = nullptr;  // like scale_tril

  TriangleLayout jac_layout() const { return {d, packed_jac}; }
  TriangleLayout scale_tril_layout() const { return {d, packed_scale_tril}; }

  bool wants_gradient() const {
    return grad_jac || grad_offset || grad_log_sigma || grad_loc || grad_scale || grad_scale_tril;
  }
};

// Computes every output that is not null, on at most `threads` threads, with the kernels of one instruction set.
template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa = best_isa());

}  // namespace cvf::sem_kl
