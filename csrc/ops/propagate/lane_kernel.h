// propagate with a jac of its own for each sample, small d: samples across SIMD lanes, so that no lane idles however
// small d is.
//
// Matrices of a group of samples are transposed into vectors on the way in and back on the way out. In between, every
// scalar operation is one vector operation for the whole group. Matrices are (d, d) vectors, row-major.
#pragma once

#include "common/lanes.h"
#include "common/triangular_solve.h"
#include "ops/propagate/terms.h"

namespace cvf::propagate::CVF_ISA {

template <class T>
struct LaneTiles {
  static constexpr int kRows = kManyRegisters ? 4 : 2;
  static constexpr int kColumns = 4;
};

// One thread's working memory, and the computation on one group at a time.
template <class T>
class LaneForward {
  using V = Vec<T>;
  using Tiles = LaneTiles<T>;

 public:
  LaneForward(const Forward<T>& args, const Sigma<T>& sigma)
      : args_(args), sigma_(sigma), d_(args.d), jac_(d_ * d_), scale_tril_(d_ * d_), loc_(d_) {}

  void run(LaneGroup group) {
    const int64_t square = d_ * d_;
    const Left<V> jac{jac_.data(), d_, 1};
    gather_lanes(args_.jac, group, square, args_.jac.end(args_.batch, square), jac_.data());

    gather_lanes(args_.offset, group, d_, args_.offset.end(args_.batch, d_), loc_.data());
    solve_lower<T, Tiles::kRows, 1>(jac, Solution<T>{loc_.data(), 1, 1}, 0, d_);
    scatter_lanes<T>(loc_.data(), group, d_, args_.loc);

    for (int64_t i = 0; i < square; ++i) scale_tril_[i] = V{};
    for (int64_t i = 0; i < d_; ++i) scale_tril_[i * (d_ + 1)] = broadcast(sigma_[i]);
    for_tiles<Tiles::kColumns>(0, d_, [&](auto columns, int64_t k) {
      solve_lower<T, Tiles::kRows, columns>(jac, Solution<T>{&scale_tril_[k], d_, 1}, k, d_);
      // NaN or infinity in A times zero.
      for (int r = 0; r < columns; ++r) {
        for (int c = r + 1; c < columns; ++c) scale_tril_[(k + r) * d_ + k + c] = V{};
      }
    });
    scatter_lanes<T>(scale_tril_.data(), group, square, args_.scale_tril);
  }

 private:
  const Forward<T>& args_;
  const Sigma<T>& sigma_;
  const int64_t d_;
  Scratch<V> jac_, scale_tril_;  // (d, d)
  Scratch<V> loc_;               // (d,)
};

template <class T>
class LaneBackward {
  using V = Vec<T>;
  using Tiles = LaneTiles<T>;

 public:
  LaneBackward(const Backward<T>& args, const Sigma<T>& sigma)
      : args_(args),
        sigma_(sigma),
        d_(args.d),
        jac_(d_ * d_),
        scale_tril_(d_ * d_),
        adjoint_(d_ * d_),
        loc_(d_),
        loc_adjoint_(d_) {}

  // `offset_sum` and `log_sigma_sum` (d,) take the gradients that the batch shares.
  void run(LaneGroup group, double* offset_sum, double* log_sigma_sum) {
    const int64_t square = d_ * d_;
    const Left<V> jac{jac_.data(), d_, 1};
    gather_lanes(args_.jac, group, square, args_.jac.end(args_.batch, square), jac_.data());

    if (args_.grad_jac || args_.grad_offset) {
      gather_lanes(args_.upstream_loc, group, d_, args_.upstream_loc.end(args_.batch, d_), loc_adjoint_.data());
      solve_transposed<T, Tiles::kRows, 1>(jac, Solution<T>{loc_adjoint_.data(), 1, 1}, 0, d_);
    }
    if (args_.grad_offset && args_.shared_offset) {
      for (int64_t i = 0; i < d_; ++i) offset_sum[i] += sum(loc_adjoint_[i], group);
    } else if (args_.grad_offset) {
      scatter_lanes<T>(loc_adjoint_.data(), group, d_, args_.grad_offset);
    }
    if (!args_.grad_jac && !args_.grad_log_sigma) return;

    factor_adjoint(group);
    if (args_.grad_log_sigma) {
      for (int64_t i = 0; i < d_; ++i) log_sigma_sum[i] += sum(sigma_[i] * adjoint_[i * (d_ + 1)], group);
    }
    if (args_.grad_jac) {
      gather_lanes(args_.scale_tril, group, square, args_.scale_tril.end(args_.batch, square), scale_tril_.data());
      gather_lanes(args_.loc, group, d_, args_.loc.end(args_.batch, d_), loc_.data());
      jac_gradient();
      scatter_lanes<T>(jac_.data(), group, square, args_.grad_jac);
    }
  }

 private:
  static CVF_INLINE double sum(V v, LaneGroup group) {
    return static_cast<double>(sum_lanes<T>(keep_first<T>(v, group.count)));
  }

  // Y = W^-T G, on and below the diagonal, where it needs G there only. What stands above is finite where G is.
  void factor_adjoint(LaneGroup group) {
    const int64_t square = d_ * d_;
    const Batched<T>& upstream = args_.upstream_scale_tril;
    gather_lanes(upstream, group, square, upstream.end(args_.batch, square), adjoint_.data());
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = i + 1; j < d_; ++j) adjoint_[i * d_ + j] = V{};
    }
    for_tiles<Tiles::kColumns>(0, d_, [&](auto columns, int64_t k) {
      solve_transposed<T, Tiles::kRows, columns>(Left<V>{jac_.data(), d_, 1}, Solution<T>{&adjoint_[k], d_, 1}, k, d_);
    });
  }

  // dA = Y S^T + y loc^T below the diagonal, in the place of A.
  void jac_gradient() {
    for_tiles<Tiles::kRows>(0, d_, [&](auto rows, int64_t i) {
      for_tiles<Tiles::kColumns>(0, i + rows, [&](auto columns, int64_t j) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) acc[r][c] = loc_adjoint_[i + r] * loc_[j + c];
        }
        const Right<T> right{&scale_tril_[j * d_], 1, d_};
        multiply_tile<1, T>(acc, Left<V>{&adjoint_[i * d_], d_, 1}, right, 0, j + kColumns);
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) jac_[(i + r) * d_ + j + c] = j + c < i + r ? acc[r][c] : V{};
        }
      });
      for (int r = 0; r < rows; ++r) {
        for (int64_t j = i + rows; j < d_; ++j) jac_[(i + r) * d_ + j] = V{};
      }
    });
  }

  const Backward<T>& args_;
  const Sigma<T>& sigma_;
  const int64_t d_;
  Scratch<V> jac_;                // (d, d): A, then its gradient
  Scratch<V> scale_tril_;         // (d, d): S
  Scratch<V> adjoint_;            // (d, d): Y
  Scratch<V> loc_, loc_adjoint_;  // (d,); the latter is y
};

}  // namespace cvf::propagate::CVF_ISA
