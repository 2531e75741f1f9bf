// sem_kl for a diagonal posterior and one jac for the whole batch.
//
// The spread needs only the column norms of D^-1/2 W, and the residuals are one matrix product, W times the batch:
// numbers of A are broadcast over lanes that hold samples. No sample has a matrix of its own.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/lanes.h"
#include "common/log_product.h"
#include "common/tile.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

// What the batch shares, computed once: A without its upper triangle, and the column norms.
template <class T>
struct SharedJac {
  SharedJac(const Arguments<T>& args, const Noise<T>& noise) : jac(args.d * args.d), column_norm(args.d) {
    const int64_t d = args.d;
    for (int64_t j = 0; j < d; ++j) column_norm[j] = noise.precision(j);
    for (int64_t i = 0; i < d; ++i) {
      const T* row = args.jac.data + args.jac_layout().row(i);
      T* copy = &jac[i * d];
      const T precision = noise.precision(i);
      for (int64_t j = 0; j < i; ++j) {
        copy[j] = row[j];
        column_norm[j] += precision * row[j] * row[j];
      }
      for (int64_t j = i; j < d; ++j) copy[j] = T(0);
    }
  }

  Scratch<T> jac;          // (d, d), zero on and above the diagonal
  Scratch<T> column_norm;  // (d,): sum_i W_ij^2 / sigma_i^2
};

// Working memory of one thread, and the computation on one block of samples at a time. In the buffers, vector
// g * d + i holds element i of the samples of group g.
template <class T>
class SharedDiagonalKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kGroups = 2;
  static constexpr int kTileRows = kManyRegisters ? 8 : 4;

 public:
  static constexpr int64_t kBlock = kGroups * kWidth;  // samples

  // Elements between the rows of the buffer for the gradient of jac.
  static int64_t padded_row(int64_t d) { return round_up(d, kWidth); }

  SharedDiagonalKernel(const Arguments<T>& args, const Noise<T>& noise, const SharedJac<T>& shared)
      : args_(args),
        noise_(noise),
        shared_(shared),
        d_(args.d),
        row_(padded_row(args.d)),
        loc_(kGroups * d_),
        scale_(kGroups * d_),
        residual_(kGroups * d_),
        work_(kGroups * d_),
        loc_rows_(kBlock * row_),
        variance_sum_(d_) {
    for (int64_t k = 0; k < kBlock * row_; ++k) loc_rows_[k] = T(0);
    for (int64_t j = 0; j < d_; ++j) variance_sum_[j] = 0;
  }

  // Samples [first, first + count) with count <= kBlock. `jac_sum` (d, padded_row) and `offset_sum`,
  // `log_sigma_sum` (d,) take the gradients that the batch shares; see also `flush`.
  void run(int64_t first, int64_t count, T* jac_sum, double* offset_sum, double* log_sigma_sum) {
    residual(first, count);
    for (int g = 0; g < kGroups; ++g) {
      const LaneGroup samples = group(first, count, g);
      gather_lanes(args_.scale, samples, d_, args_.scale.end(args_.batch, d_), &scale_[g * d_]);
      if (args_.value && samples.count > 0) value(samples, g);
    }
    if (!args_.wants_gradient()) return;

    for (int g = 0; g < kGroups; ++g) diagonal_gradients(group(first, count, g), g, log_sigma_sum);
    if (args_.grad_loc) {
      loc_gradient();
      scatter(first, count, args_.grad_loc);
    }
    if (args_.grad_jac) jac_gradient(first, count, jac_sum);
    for (int64_t i = 0; i < d_; ++i) {
      for (int g = 0; g < kGroups; ++g) {
        work_[g * d_ + i] = -residual_[g * d_ + i];
        offset_sum[i] += static_cast<double>(sum_lanes<T>(work_[g * d_ + i]));
      }
    }
    if (args_.grad_offset && !args_.shared_offset) scatter(first, count, args_.grad_offset);
  }

  // Adds the terms that depend on the samples since the last flush through v_j = sum_b g_b s_bj^2 alone:
  // A_ij v_j / sigma_i^2 to dA, and -(v_i + sum_j A_ij^2 v_j) / sigma_i^2 to dlog_sigma.
  void flush(T* jac_sum, double* log_sigma_sum) {
    constexpr int64_t kSums = 8;  // side by side, since a sum waits for its last addition
    for (int64_t i = 0; i < d_; ++i) {
      const double precision = static_cast<double>(noise_.precision(i));
      const T* a = &shared_.jac[i * d_];
      double spread[kSums] = {variance_sum_[i]};
      int64_t j = 0;
      for (; j + kSums <= i; j += kSums) {
        for (int64_t s = 0; s < kSums; ++s) {
          const double element = static_cast<double>(a[j + s]);
          spread[s] += element * element * variance_sum_[j + s];
        }
      }
      for (; j < i; ++j) spread[0] += static_cast<double>(a[j]) * static_cast<double>(a[j]) * variance_sum_[j];
      log_sigma_sum[i] -= precision * std::accumulate(spread, spread + kSums, 0.0);
      if (!args_.grad_jac) continue;
      T* out = jac_sum + i * row_;
      for (j = 0; j < i; ++j) {
        out[j] += static_cast<T>(precision * static_cast<double>(a[j]) * variance_sum_[j]);
      }
    }
    for (int64_t j = 0; j < d_; ++j) variance_sum_[j] = 0;
  }

 private:
  // The samples of group g, none or more; lanes without one repeat the last sample of the block.
  static LaneGroup group(int64_t first, int64_t count, int g) {
    const int64_t start = std::min<int64_t>(g * kWidth, count);
    return {first + start, std::min<int64_t>(kWidth, count - start)};
  }

  void scatter(int64_t first, int64_t count, T* out) const {
    for (int g = 0; g < kGroups; ++g) scatter_lanes<T>(&work_[g * d_], group(first, count, g), d_, out);
  }

  // r = W loc - b
  void residual(int64_t first, int64_t count) {
    for (int g = 0; g < kGroups; ++g) {
      const LaneGroup samples = group(first, count, g);
      gather_lanes(args_.loc, samples, d_, args_.loc.end(args_.batch, d_), &loc_[g * d_]);
      if (args_.shared_offset) {
        for (int64_t i = 0; i < d_; ++i) work_[g * d_ + i] = broadcast(args_.offset.data[i]);
      } else {
        gather_lanes(args_.offset, samples, d_, args_.offset.end(args_.batch, d_), &work_[g * d_]);
      }
    }
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      constexpr int kRows = rows;
      V acc[kRows][kGroups];
      for (int r = 0; r < kRows; ++r) {
        for (int g = 0; g < kGroups; ++g) acc[r][g] = loc_[g * d_ + i + r] - work_[g * d_ + i + r];
      }
      multiply_tile<-1, T>(acc, Left<T>{&shared_.jac[i * d_], d_, 1}, Right<T>{loc_.data(), 1, d_}, 0, i + kRows - 1);
      for (int r = 0; r < kRows; ++r) {
        for (int g = 0; g < kGroups; ++g) residual_[g * d_ + i + r] = acc[r][g];
      }
    });
  }

  void value(LaneGroup samples, int g) {
    LogProduct<T> product;
    V mahalanobis{};
    for (int64_t i = 0; i < d_; ++i) {
      const V s = scale_[g * d_ + i], r = residual_[g * d_ + i];
      product.multiply(s);
      mahalanobis += shared_.column_norm[i] * s * s + noise_.precision(i) * r * r;
    }
    for (int64_t lane = 0; lane < samples.count; ++lane) {
      const double quadratic = static_cast<double>(mahalanobis[lane]) - static_cast<double>(d_);
      args_.value[samples.first + lane] =
          static_cast<T>(0.5 * quadratic + noise_.log_det - product.log(static_cast<int>(lane)));
    }
  }

  // ds_j = g (s_j column_norm_j - 1 / s_j); the part of dlog_sigma that is not left to `flush`. Leaves g D^-1 r in
  // `residual_`.
  void diagonal_gradients(LaneGroup samples, int g, double* log_sigma_sum) {
    V upstream{};
    for (int64_t lane = 0; lane < samples.count; ++lane) upstream[lane] = *args_.upstream[samples.first + lane];
    for (int64_t j = 0; j < d_; ++j) {
      const V s = scale_[g * d_ + j];
      V& r = residual_[g * d_ + j];
      work_[g * d_ + j] = upstream * (shared_.column_norm[j] * s - T(1) / s);
      variance_sum_[j] += static_cast<double>(sum_lanes<T>(upstream * s * s));
      log_sigma_sum[j] += static_cast<double>(sum_lanes<T>(upstream * (T(1) - noise_.precision(j) * r * r)));
      r *= upstream * noise_.precision(j);
    }
    if (args_.grad_scale) scatter_lanes<T>(&work_[g * d_], samples, d_, args_.grad_scale);
  }

  // dloc = g W^T D^-1 r, into `work_`.
  void loc_gradient() {
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t j) {
      constexpr int kRows = rows;
      V acc[kRows][kGroups];
      for (int r = 0; r < kRows; ++r) {
        for (int g = 0; g < kGroups; ++g) acc[r][g] = residual_[g * d_ + j + r];
      }
      multiply_tile<-1, T>(acc, Left<T>{&shared_.jac[j], 1, d_}, Right<T>{residual_.data(), 1, d_}, j + 1, d_);
      for (int r = 0; r < kRows; ++r) {
        for (int g = 0; g < kGroups; ++g) work_[g * d_ + j + r] = acc[r][g];
      }
    });
  }

  // The residual's part of dA: -sum_b g_b D^-1 r_b loc_b^T, with lanes over the columns.
  void jac_gradient(int64_t first, int64_t count, T* jac_sum) {
    for (int64_t b = 0; b < count; ++b) {
      std::memcpy(&loc_rows_[b * row_], args_.loc[first + b], static_cast<size_t>(d_) * sizeof(T));
    }
    const int64_t row_vectors = row_ / kWidth;
    const V* loc_rows = reinterpret_cast<const V*>(loc_rows_.data());
    for_tiles<2>(0, row_vectors, [&](auto columns, int64_t panel) {
      constexpr int kColumns = columns;
      const int64_t j = panel * kWidth;
      for_tiles<kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        V acc[kRows][kColumns] = {};
        for (int g = 0; g < kGroups; ++g) {
          const T* weighted = reinterpret_cast<const T*>(&residual_[g * d_ + i]);
          const Right<T> right{loc_rows + g * kWidth * row_vectors + panel, row_vectors, 1};
          multiply_tile<1, T>(acc, Left<T>{weighted, kWidth, 1}, right, 0, group(first, count, g).count);
        }
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) {
            T* target = jac_sum + (i + r) * row_ + j + c * kWidth;
            store(target, load(target) - acc[r][c]);
          }
        }
      });
    });
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const SharedJac<T>& shared_;
  const int64_t d_;
  const int64_t row_;
  Scratch<V> loc_, scale_;
  Scratch<V> residual_;           // r, then g D^-1 r
  Scratch<V> work_;               // b, then one gradient after the other
  Scratch<T> loc_rows_;           // (block, row), padded with zeros
  Scratch<double> variance_sum_;  // (d,): sum_b g_b s_bj^2 since the last flush
};

}  // namespace cvf::sem_kl::CVF_ISA
