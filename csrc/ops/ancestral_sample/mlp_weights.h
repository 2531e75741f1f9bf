// The weights of masked-MLP mechanisms as the kernels read them, and their gradients in the same layout.
#pragma once

#include "common/scratch.h"
#include "ops/ancestral_sample/mlp.h"

namespace cvf::ancestral_sample::mlp::CVF_ISA {

using namespace cvf::CVF_ISA;

// Node i has a row for each hidden unit: the bias, as the weight of an input that is always 1, then the weights
// U_ikj m_ij of the inputs j < i. Rows are padded to whole vectors.
template <class T>
struct PackedLayout {
  static constexpr int64_t kWidth = kLanes<T>;

  int64_t d, hidden;

  static int64_t row(int64_t i) { return (i / kWidth + 1) * kWidth; }  // elements
  // Of the first row of node i; of the end for i = d.
  int64_t offset(int64_t i) const {
    const int64_t vectors = i / kWidth, rest = i % kWidth;
    return hidden * kWidth * (kWidth * vectors * (vectors + 1) / 2 + rest * (vectors + 1));
  }
};

// Packs the weights of node i.
template <class T>
void pack(const Equations<T>& e, int64_t i, T* packed) {
  const PackedLayout<T> layout{e.d, e.hidden};
  const T* edges = e.edges + i * e.d;
  for (int64_t k = 0; k < e.hidden; ++k) {
    T* row = packed + layout.offset(i) + k * layout.row(i);
    const T* w_in = e.w_in + (i * e.hidden + k) * e.d;
    row[0] = e.b_in[i * e.hidden + k];
    for (int64_t j = 0; j < i; ++j) row[1 + j] = w_in[j] * edges[j];
  }
}

// The gradients of w_in, b_in and edges of node i from that of what was packed.
template <class T>
void unpack_gradients(const Backward<T>& args, int64_t i, const T* packed) {
  const Equations<T>& e = args.equations;
  const PackedLayout<T> layout{e.d, e.hidden};
  const T* edges = e.edges + i * e.d;
  Scratch<double> of_edges(e.d);
  for (int64_t j = 0; j < e.d; ++j) of_edges[j] = 0;
  for (int64_t k = 0; k < e.hidden; ++k) {
    const T* row = packed + layout.offset(i) + k * layout.row(i);
    const int64_t unit = i * e.hidden + k;
    if (args.grad_b_in) args.grad_b_in[unit] = row[0];
    if (args.grad_w_in) {
      for (int64_t j = 0; j < i; ++j) args.grad_w_in[unit * e.d + j] = row[1 + j] * edges[j];
      for (int64_t j = i; j < e.d; ++j) args.grad_w_in[unit * e.d + j] = T(0);
    }
    if (args.grad_edges) {
      const T* w_in = e.w_in + unit * e.d;
      for (int64_t j = 0; j < i; ++j) of_edges[j] += static_cast<double>(row[1 + j]) * static_cast<double>(w_in[j]);
    }
  }
  if (args.grad_edges) {
    for (int64_t j = 0; j < e.d; ++j) args.grad_edges[i * e.d + j] = static_cast<T>(of_edges[j]);
  }
}

}  // namespace cvf::ancestral_sample::mlp::CVF_ISA
