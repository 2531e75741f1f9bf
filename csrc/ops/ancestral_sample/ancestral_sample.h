// Ancestral sampling from a structural equation model, and the gradients of its parameters.
//
//   z_i = sum_{j<i} A_ij z_j + sum_{j<i} Q_ij z_j^2 + b_i + noise_i,   or z_i = value_i where the node is replaced
//
// The derivation of the gradients is in causalvae_fast/ops/ancestral_sample/README.md.
#pragma once

#include <cstdint>

#include "common/batched.h"
#include "common/isa.h"

namespace cvf::ancestral_sample {

// The equations, and which of them are replaced. Matrices are read below the diagonal only.
template <class T>
struct Equations {
  int64_t batch = 0;  // N
  int64_t d = 0;

  Batched<T> jac;            // (N, d, d) or (d, d): A
  Batched<T> quadratic;      // like jac: Q; null for a linear mechanism
  bool shared_jac = false;   // whether the batch has one jac, and one quadratic
  Batched<uint8_t> do_mask;  // (N, d) or (d,): 1 where a node's equation is replaced by its value, else 0
};

// Outputs have no gaps.
template <class T>
struct Forward {
  Equations<T> equations;
  Batched<T> noise;           // (N, d)
  const T* offset = nullptr;  // (d,): b
  Batched<T> do_values;       // (N, d) or (d,)

  T* z = nullptr;  // (N, d)
};

// A gradient that is null is not computed; one of what the batch shares is summed over it.
template <class T>
struct Backward {
  Equations<T> equations;
  Batched<T> z;         // (N, d), as the forward pass gave it
  Batched<T> upstream;  // (N, d): the gradient of the loss with respect to z
  bool shared_values = false;

  T* grad_noise = nullptr;      // (N, d), zero where a node is replaced
  T* grad_jac = nullptr;        // like jac, zero on and above the diagonal
  T* grad_quadratic = nullptr;  // like quadratic, zero on and above the diagonal
  T* grad_offset = nullptr;     // (d,)
  T* grad_values = nullptr;     // (N, d) or (d,), zero where a node is not replaced
};

// On at most `threads` threads, with the kernels of one instruction set.
template <class T>
void forward(const Forward<T>& arguments, int threads, Isa isa = best_isa());
template <class T>
void backward(const Backward<T>& arguments, int threads, Isa isa = best_isa());

}  // namespace cvf::ancestral_sample
