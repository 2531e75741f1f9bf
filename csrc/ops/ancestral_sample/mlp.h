// Ancestral sampling where the mechanism of each node is a network with one hidden layer.
//
//   z_i = sum_k w_ik phi(pre_ik) + e_i + noise_i,   pre_ik = sum_{j<i} U_ikj m_ij z_j + c_ik,
//   or z_i = value_i where the node is replaced
//
// The derivation of the gradients is in causalvae_fast/ops/ancestral_sample/README.md.
#pragma once

#include <cstdint>

#include "common/activation.h"
#include "common/batched.h"
#include "common/isa.h"
#include "common/kernel_entry.h"

namespace cvf::ancestral_sample::mlp {

// The equations, and which of them are replaced. Parameters have no gaps.
template <class T>
struct Equations {
  int64_t batch = 0;  // N
  int64_t d = 0;
  int64_t hidden = 0;  // h: units of each node
  Activation activation = Activation::kTanh;

  const T* w_in = nullptr;   // (d, h, d): U, read where the input is before the node only
  const T* b_in = nullptr;   // (d, h): c
  const T* w_out = nullptr;  // (d, h): w
  const T* b_out = nullptr;  // (d,): e
  const T* edges = nullptr;  // (d, d): m, read below the diagonal only
  Batched<uint8_t> do_mask;  // (N, d) or (d,): 1 where a node's equation is replaced by its value, else 0
};

// Outputs have no gaps.
template <class T>
struct Forward {
  Equations<T> equations;
  Batched<T> noise;      // (N, d)
  Batched<T> do_values;  // (N, d) or (d,)

  T* z = nullptr;  // (N, d)
};

// A gradient that is null is not computed; one of what the batch shares is summed over it.
template <class T>
struct Backward {
  Equations<T> equations;
  Batched<T> z;         // (N, d), as the forward pass gave it
  Batched<T> upstream;  // (N, d): the gradient of the loss with respect to z
  bool shared_values = false;

  T* grad_noise = nullptr;   // (N, d), zero where a node is replaced
  T* grad_w_in = nullptr;    // (d, h, d), zero where the input is not before the node
  T* grad_b_in = nullptr;    // (d, h)
  T* grad_w_out = nullptr;   // (d, h)
  T* grad_b_out = nullptr;   // (d,)
  T* grad_edges = nullptr;   // (d, d), zero on and above the diagonal
  T* grad_values = nullptr;  // (N, d) or (d,), zero where a node is not replaced
};

// On at most `threads` threads, with the kernels of one instruction set.
template <class T>
void forward(const Forward<T>& arguments, int threads, Isa isa = best_isa());
template <class T>
void backward(const Backward<T>& arguments, int threads, Isa isa = best_isa());

// The entries of each instruction set's kernels.
CVF_DECLARE_KERNEL(forward, Forward)
CVF_DECLARE_KERNEL(backward, Backward)

}  // namespace cvf::ancestral_sample::mlp
