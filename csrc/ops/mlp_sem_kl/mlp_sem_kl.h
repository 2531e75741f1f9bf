// KL divergence of Gaussian posteriors from a structural equation model whose mechanisms are networks with one hidden
// layer, linearised at a pivot z. The Jacobian of the mechanisms is never stored.
//
//   pre_ik = sum_{j<i} U_ikj m_ij z_j + c_ik,   f_i = sum_k w_ik phi(pre_ik) + e_i,
//   J_ij = m_ij sum_k w_ik phi'(pre_ik) U_ikj,   M = (I - J) L,   r = loc - f - J (loc - z)
//   KL = 1/2 (|D^-1/2 M|_F^2 + |D^-1/2 r|^2 - d) + sum_i log sigma_i - sum_i log L_ii
//
// The gradient of z is that through J alone: what comes through f and through v = loc - z cancels, exactly.
// The derivation of the gradients is in causalvae_fast/ops/mlp_sem_kl/README.md.
#pragma once

#include <cstdint>

#include "common/activation.h"
#include "common/batched.h"
#include "common/isa.h"
#include "common/kernel_entry.h"

namespace cvf::mlp_sem_kl {

// Exactly one of scale and scale_tril is given. An output that is null is not computed. Parameters and outputs have no
// gaps; the gradients of parameters are summed over the batch.
template <class T>
struct Arguments {
  int64_t batch = 0;  // B
  int64_t d = 0;
  int64_t hidden = 0;  // h: units of each node
  Activation activation = Activation::kTanh;

  Batched<T> pivot;              // (B, d): z
  const T* w_in = nullptr;       // (d, h, d): U, read where the input is before the node only
  const T* b_in = nullptr;       // (d, h): c
  const T* w_out = nullptr;      // (d, h): w
  const T* b_out = nullptr;      // (d,): e
  const T* edges = nullptr;      // (d, d): m, read below the diagonal only
  const T* log_sigma = nullptr;  // (d,)
  Batched<T> loc;                // (B, d)
  Batched<T> scale;              // (B, d): diagonal posterior, L = diag(scale)
  Batched<T> scale_tril;         // (B, d, d), or packed: full posterior, L read on and below the diagonal only
  Batched<T> upstream;           // (B,) or one number: the gradient of the loss with respect to each KL
  bool packed_scale_tril = false;

  T* value = nullptr;            // (B,)
  T* total = nullptr;            // one number: sum_b upstream_b KL_b, whose gradients the others are
  T* grad_pivot = nullptr;       // (B, d)
  T* grad_w_in = nullptr;        // (d, h, d), zero where the input is not before the node
  T* grad_b_in = nullptr;        // (d, h)
  T* grad_w_out = nullptr;       // (d, h)
  T* grad_b_out = nullptr;       // (d,)
  T* grad_edges = nullptr;       // (d, d), zero on and above the diagonal
  T* grad_log_sigma = nullptr;   // (d,)
  T* grad_loc = nullptr;         // (B, d)
  T* grad_scale = nullptr;       // (B, d)
  T* grad_scale_tril = nullptr;  // like scale_tril

  bool wants_weights() const { return grad_w_in || grad_edges; }
  bool wants_gradient() const {
    return grad_pivot || wants_weights() || grad_b_in || grad_w_out || grad_b_out || grad_log_sigma || grad_loc ||
           grad_scale || grad_scale_tril;
  }
};

// Computes every output that is not null, on at most `threads` threads, with the kernels of one instruction set.
template <class T>
void run(const Arguments<T>& arguments, int threads, Isa isa = best_isa());

// The entry of each instruction set's kernels.
CVF_DECLARE_KERNEL(run, Arguments)

}  // namespace cvf::mlp_sem_kl
