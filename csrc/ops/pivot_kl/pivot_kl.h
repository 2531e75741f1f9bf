// KL divergences of B Gaussian posteriors from the local Gaussians of K pivots, with their gradients.
//
//   W_k = I - A_k,   D = diag(sigma^2),   M_bk = W_k L_b,   r_bk = W_k loc_b - b_k
//   KL_bk = 1/2 (|D^-1/2 M_bk|_F^2 + |D^-1/2 r_bk|^2 - d) + sum_i log sigma_i - sum_i log L_b,ii
//
// The derivation of the gradients is in causalvae_fast/ops/pivot_kl/README.md.
#pragma once

#include <cstdint>

#include "common/batched.h"
#include "common/isa.h"

namespace cvf::pivot_kl {

enum class Reduction {
  kNone,       // (B, K): KL_bk
  kMin,        // (B,): the smallest over k, and its k
  kLogsumexp,  // (B,): -log(1/K sum_k exp(-KL_bk))
};

// Exactly one of scale and scale_tril is given. If all gradients are null, the value (and index) is computed.
// Otherwise the others are, and `value` and `index` are read: what the reduction gave. Outputs have no gaps.
template <class T>
struct Arguments {
  int64_t batch = 0;   // B
  int64_t pivots = 0;  // K
  int64_t d = 0;

  Batched<T> jac;                // (K, d, d): A, read below the diagonal only
  Batched<T> offset;             // (K, d): b
  const T* log_sigma = nullptr;  // (d,)
  Batched<T> loc;                // (B, d)
  Batched<T> scale;              // (B, d): diagonal posterior, L = diag(scale)
  Batched<T> scale_tril;         // (B, d, d): full posterior, L read on and below the diagonal only
  Reduction reduction = Reduction::kNone;

  Batched<T> upstream;       // (B, K) without a reduction, otherwise (B,)
  T* value = nullptr;        // the same
  int64_t* index = nullptr;  // (B,), for the smallest

  T* grad_jac = nullptr;         // (K, d, d)
  T* grad_offset = nullptr;      // (K, d)
  T* grad_log_sigma = nullptr;   // (d,)
  T* grad_loc = nullptr;         // (B, d)
  T* grad_scale = nullptr;       // (B, d)
  T* grad_scale_tril = nullptr;  // (B, d, d)

  bool wants_gradient() const {
    return grad_jac || grad_offset || grad_log_sigma || grad_loc || grad_scale || grad_scale_tril;
  }
};

// On at most `threads` threads, with the kernels of one instruction set.
template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa = best_isa());

}  // namespace cvf::pivot_kl
