// What all samples share: the pivots, in the form that the kernel needs.
#pragma once

#include <algorithm>

#include "common/noise.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tile.h"
#include "ops/pivot_kl/pivot_kl.h"

namespace cvf::pivot_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// Elements between rows of matrices of T that are read in vectors.
template <class T>
int64_t padded_row(int64_t d) {
  return round_up(d, kLanes<T>);
}

// Symmetric matrices of which pairs only add up multiples, packed row by row: element (i, j), j <= i, at i (i + 1) / 2
// + j. Read in blocks of kBlock numbers and in vectors.
template <class T>
struct Packed {
  static constexpr int kBlock = 8;

  // An odd number of lines of the cache, so that those of several matrices do not compete.
  static int64_t size(int64_t d) {
    constexpr int64_t line = std::max<int64_t>(kBlock, kLanes<T>);
    const int64_t lines = (d * (d + 1) / 2 + line - 1) / line;
    return (lines + 1 - lines % 2) * line;
  }
};

// The noise, A_k without its upper triangle, and W_k^T D^-1 W_k: its diagonal, or all of it.
template <class T>
class Pivots {
  static constexpr int kBlock = Packed<T>::kBlock;

 public:
  Pivots(const Arguments<T>& args, int threads)
      : count_(args.pivots),
        d_(args.d),
        has_products_(args.scale_tril && args.grad_scale_tril),
        noise_(args.log_sigma, args.d),
        jac_(args.pivots * args.d * args.d),
        column_norm_(args.pivots * args.d),
        product_(has_products_ ? args.pivots * Packed<T>::size(args.d) : 0) {
    auto body = [&](int, int64_t begin, int64_t end) {
      const int64_t size = has_products_ ? d_ * padded_row<T>(d_) : 0;
      Scratch<T> w(size), weighted(size), square(size);
      for (int64_t k = begin; k < end; ++k) {
        copy_jac(args.jac[k], &jac_[k * d_ * d_]);
        column_norms(jac(k), &column_norm_[k * d_]);
        if (!has_products_) continue;
        multiply(jac(k), w.data(), weighted.data(), square.data());
        pack(square.data(), k);
      }
    };
    parallel_for(count_, threads, body);
  }

  T precision(int64_t i) const { return noise_.precision(i); }
  double log_det() const { return noise_.log_det; }                        // sum_i log sigma_i
  const T* jac(int64_t k) const { return &jac_[k * d_ * d_]; }             // (d, d), zero on and above the diagonal
  const T* column_norm(int64_t k) const { return &column_norm_[k * d_]; }  // (d,): sum_i W_ij^2 / sigma_i^2
  // (K, kBlock): numbers e and following of each pivot's W^T D^-1 W, packed.
  const T* product_block(int64_t e) const { return &product_[e * count_]; }

 private:
  void copy_jac(const T* source, T* out) const {
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < d_; ++j) out[i * d_ + j] = j < i ? source[i * d_ + j] : T(0);
    }
  }

  void column_norms(const T* jac, T* out) const {
    for (int64_t j = 0; j < d_; ++j) out[j] = precision(j);
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < i; ++j) out[j] += precision(i) * jac[i * d_ + j] * jac[i * d_ + j];
    }
  }

  // The lower triangle of W^T D^-1 W, (d, row); `w` and `weighted` become W and D^-1 W.
  void multiply(const T* jac, T* w, T* weighted, T* out) const {
    const int64_t row = padded_row<T>(d_);
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j < row; ++j) {
        w[i * row + j] = j < i ? -jac[i * d_ + j] : static_cast<T>(j == i);
        weighted[i * row + j] = precision(i) * w[i * row + j];
      }
    }
    for (int64_t j = 0; j < d_; j += kLanes<T>) {
      for_tiles<8>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        Vec<T> acc[kRows][1] = {};
        const Right<T> right{reinterpret_cast<const Vec<T>*>(w + j), row / kLanes<T>, 1};
        multiply_tile<1, T>(acc, Left<T>{weighted + i, 1, row}, right, i, d_);
        for (int r = 0; r < kRows; ++r) store(out + (i + r) * row + j, acc[r][0]);
      });
    }
  }

  void pack(const T* square, int64_t k) {
    int64_t e = 0;
    auto put = [&](T x) {
      product_[(e / kBlock * count_ + k) * kBlock + e % kBlock] = x;
      ++e;
    };
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j <= i; ++j) put(square[i * padded_row<T>(d_) + j]);
    }
    while (e < Packed<T>::size(d_)) put(T(0));
  }

  int64_t count_, d_;
  bool has_products_;
  Noise<T> noise_;
  Scratch<T> jac_, column_norm_, product_;
};

}  // namespace cvf::pivot_kl::CVF_ISA
