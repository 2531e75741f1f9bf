// The network of one node for a tile of samples: its value, the node's row of the Jacobian, and what their gradients
// are passed back to. Vectors hold parents or hidden units; samples are rows.
#pragma once

#include "common/scratch.h"
#include "common/tile.h"
#include "common/vector_activation.h"
#include "ops/mlp_sem_kl/node_weights.h"

namespace cvf::mlp_sem_kl::CVF_ISA {

template <class T>
class NodeKernel {
  using V = Vec<T>;
  static constexpr int64_t kWidth = kLanes<T>;
  static constexpr int kTileRows = kManyRegisters ? 8 : 4;
  static constexpr int kTileColumns = 2;

 public:
  static constexpr int64_t kSamples = 32;  // of a tile, at most
  static_assert(kSamples % kWidth == 0);

  // `row`: elements between the rows of matrices of samples by nodes.
  NodeKernel(Activation activation, int64_t hidden, int64_t row)
      : activation_(activation),
        hidden_(hidden),
        units_(round_up(hidden, kWidth)),
        row_(row),
        phi_(kSamples * units_),
        slope_(kSamples * units_),
        curvature_(kSamples * units_),
        weighted_slope_(kSamples * units_),
        back_(kSamples * units_),
        jac_(kSamples * row) {}

  // phi(pre) and its derivatives for z (samples, row).
  void activate(const Node<T>& node, const T* z, int64_t samples, bool wants_curvature) {
    for_product(samples, units_, [&](auto rows, auto columns, int64_t b, int64_t k) {
      V acc[rows][columns];
      get(acc, node.b_in + k, 0);
      multiply_parents(acc, node, z + b * row_, k);
      put(acc, &phi_[b * units_ + k], units_);
    });
    V* phi = reinterpret_cast<V*>(phi_.data());
    V* slope = reinterpret_cast<V*>(slope_.data());
    const int64_t count = samples * units_ / kWidth;
    if (wants_curvature) {
      activate_with_derivatives<T>(activation_, phi, slope, reinterpret_cast<V*>(curvature_.data()), count);
    } else {
      activate_with_slope<T>(activation_, phi, slope, count);
    }
    for (int64_t k = 0; k < units_; k += kWidth) {
      const V w_out = load(node.w_out + k);
      for (int64_t b = 0; b < samples; ++b)
        store(&weighted_slope_[b * units_ + k], w_out * load(&slope_[b * units_ + k]));
    }
  }

  // J_ij = m_ij sum_k w_k phi'(pre_k) U_kj, into jac().
  void jacobian(const Node<T>& node, int64_t samples) {
    for_parents(node, samples, [&](auto rows, auto columns, int64_t b, int64_t j) {
      V acc[rows][columns] = {};
      multiply_tile<1, T>(acc, Left<T>{&weighted_slope_[b * units_], units_, 1}, right(node.rows + j, node.row), 0,
                          hidden_);
      put(acc, &jac_[b * row_ + j], row_);
    });
  }

  // sum_k w_k phi(pre_k) of one sample, still in lanes.
  CVF_INLINE V value_lanes(const Node<T>& node, int64_t sample) const {
    V sum{};
    for (int64_t k = 0; k < units_; k += kWidth) sum += load(node.w_out + k) * load(&phi_[sample * units_ + k]);
    return sum;
  }

  // Row i of the Jacobian of one sample, (row,); valid where the node has parents. Its gradient replaces it.
  T* jac(int64_t sample) { return &jac_[sample * row_]; }

  // From the gradients of f_i, (samples,), and of row i of the Jacobian, in jac(), to those of the parameters, added to
  // `sums`, and of z (samples, row) through the Jacobian alone, added to grad_z, which may be null. After `activate`
  // with curvature.
  void pass_back(const Node<T>& node, const T* z, const T* of_value, int64_t samples,
                 const typename NodeGradients<T>::Sums& sums, T* grad_z) {
    // H_k = sum_j dJ_ij m_ij U_kj
    for_product(samples, units_, [&](auto rows, auto columns, int64_t b, int64_t k) {
      V acc[rows][columns] = {};
      multiply_parents(acc, node, &jac_[b * row_], k);
      put(acc, &back_[b * units_ + k], units_);
    });
    of_units(node, of_value, samples, sums);
    if (grad_z) {
      for_parents(node, samples, [&](auto rows, auto columns, int64_t b, int64_t j) {
        V acc[rows][columns];
        get(acc, grad_z + b * row_ + j, row_);
        multiply_tile<1, T>(acc, Left<T>{&curvature_[b * units_], units_, 1}, right(node.rows + j, node.row), 0,
                            hidden_);
        put(acc, grad_z + b * row_ + j, row_);
      });
    }
    if (sums.w_in) {
      for_parents(node, hidden_, [&](auto rows, auto columns, int64_t k, int64_t j) {
        V acc[rows][columns];
        T* sum = sums.w_in + k * node.row + j;
        get(acc, sum, node.row);
        multiply_tile<1, T>(acc, Left<T>{&weighted_slope_[k], 1, units_}, right(&jac_[j], row_), 0, samples);
        multiply_tile<1, T>(acc, Left<T>{&back_[k], 1, units_}, right(z + j, row_), 0, samples);
        put(acc, sum, node.row);
      });
    }
  }

 private:
  // A matrix as the right operand of a product, from a vector of its first row on.
  static Right<T> right(const T* matrix, int64_t row) { return {reinterpret_cast<const V*>(matrix), row / kWidth, 1}; }

  // Tiles of (rows, columns) elements: body(Constant<rows>, Constant<vectors>, row, column).
  template <class Body>
  CVF_INLINE static void for_product(int64_t rows, int64_t columns, Body&& body) {
    for_tiles<kTileColumns>(0, columns / kWidth, [&](auto vectors, int64_t c) {
      for_tiles<kTileRows>(0, rows, [&](auto n, int64_t r) { body(n, vectors, r, c * kWidth); });
    });
  }

  // The same for the columns of a node's parents.
  template <class Body>
  CVF_INLINE static void for_parents(const Node<T>& node, int64_t rows, Body&& body) {
    for (const Parents* p = node.parents; p != node.parents_end; ++p) {
      for_product(rows, round_up(p->end - p->begin, kWidth),
                  [&](auto n, auto vectors, int64_t r, int64_t c) { body(n, vectors, r, p->begin + c); });
    }
  }

  // acc += sum over parents j of x(r, j) m_ij U_kj, for units k and following.
  template <int kRows, int kColumns>
  CVF_INLINE void multiply_parents(V (&acc)[kRows][kColumns], const Node<T>& node, const T* x, int64_t k) const {
    for (const Parents* p = node.parents; p != node.parents_end; ++p) {
      multiply_tile<1, T>(acc, Left<T>{x, row_, 1}, right(node.columns + k, units_), p->begin, p->end);
    }
  }

  template <int kRows, int kColumns>
  CVF_INLINE static void get(V (&acc)[kRows][kColumns], const T* from, int64_t row) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c) acc[r][c] = load(from + r * row + c * kWidth);
    }
  }

  template <int kRows, int kColumns>
  CVF_INLINE static void put(const V (&acc)[kRows][kColumns], T* to, int64_t row) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c) store(to + r * row + c * kWidth, acc[r][c]);
    }
  }

  // dpre_k = w_k (df phi'(pre_k) + H_k phi''(pre_k)), which replaces H, and its second part, which replaces phi'';
  // dw_k = df phi(pre_k) + H_k phi'(pre_k).
  void of_units(const Node<T>& node, const T* of_value, int64_t samples, const typename NodeGradients<T>::Sums& sums) {
    for (int64_t k = 0; k < units_; k += kWidth) {
      const V w_out = load(node.w_out + k);
      V of_w_out{}, of_b_in{};
      for (int64_t b = 0; b < samples; ++b) {
        const int64_t place = b * units_ + k;
        const V h = load(&back_[place]), slope = load(&slope_[place]);
        of_w_out += of_value[b] * load(&phi_[place]) + h * slope;
        const V through_jac = w_out * h * load(&curvature_[place]);
        const V of_pre = w_out * slope * of_value[b] + through_jac;
        store(&curvature_[place], through_jac);
        of_b_in += of_pre;
        store(&back_[place], of_pre);
      }
      store(sums.w_out + k, load(sums.w_out + k) + of_w_out);
      store(sums.b_in + k, load(sums.b_in + k) + of_b_in);
    }
    for (int64_t b = 0; b < samples; ++b) *sums.b_out += of_value[b];
  }

  const Activation activation_;
  const int64_t hidden_;
  const int64_t units_;  // hidden, rounded up to whole vectors
  const int64_t row_;
  Scratch<T> phi_, slope_, curvature_;  // (samples, units): phi(pre) and its derivatives
  Scratch<T> weighted_slope_;           // (samples, units): w_k phi'(pre_k)
  Scratch<T> back_;                     // (samples, units): H, then the gradient of pre
  Scratch<T> jac_;                      // (samples, row): row i of the Jacobian, then its gradient
};

}  // namespace cvf::mlp_sem_kl::CVF_ISA
