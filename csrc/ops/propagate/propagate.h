// The Gaussian of the linear structural equation model z = A z + b + n, and the gradients of its parameters.
//
//   W = I - A,   loc = W^-1 b,   scale_tril = W^-1 diag(sigma)
//
// The derivation of the gradients is in causalvae_fast/ops/propagate/README.md.
#pragma once

#include <cstdint>

#include "common/batched.h"
#include "common/isa.h"

namespace cvf::propagate {

// Where jac is shared, so is scale_tril, and there is one of it, and of its gradient. Outputs have no gaps.
template <class T>
struct Forward {
  int64_t batch = 0;  // B
  int64_t d = 0;

  Batched<T> jac;                // (B, d, d) or (d, d): A, read below the diagonal only
  Batched<T> offset;             // (B, d) or (d,): b
  const T* log_sigma = nullptr;  // (d,)
  bool shared_jac = false;

  T* loc = nullptr;         // (B, d)
  T* scale_tril = nullptr;  // like jac, zero above the diagonal
};

// A gradient that is null is not computed; one of what the batch shares is summed over it.
template <class T>
struct Backward {
  int64_t batch = 0;  // B
  int64_t d = 0;

  Batched<T> jac;                  // (B, d, d) or (d, d): A, read below the diagonal only
  const T* log_sigma = nullptr;    // (d,)
  Batched<T> loc;                  // (B, d), as the forward pass gave it
  Batched<T> scale_tril;           // like jac, as the forward pass gave it
  Batched<T> upstream_loc;         // (B, d): the gradient of the loss with respect to loc
  Batched<T> upstream_scale_tril;  // like jac, read on and below the diagonal only
  bool shared_jac = false;
  bool shared_offset = false;

  T* grad_jac = nullptr;        // like jac, zero on and above the diagonal
  T* grad_offset = nullptr;     // (B, d) or (d,)
  T* grad_log_sigma = nullptr;  // (d,)
};

// On at most `threads` threads, with the kernels of one instruction set.
template <class T>
void forward(const Forward<T>& arguments, int threads, Isa isa = best_isa());
template <class T>
void backward(const Backward<T>& arguments, int threads, Isa isa = best_isa());

}  // namespace cvf::propagate
