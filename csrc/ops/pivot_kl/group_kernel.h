// pivot_kl on a group of samples, which stand across SIMD lanes, and all pivots, whose numbers are broadcast.
//
// For a diagonal posterior, residuals, the gradients of loc and of jac are matrix products of the batch with W_k, and
// the spread is one of squares with column norms. For a full one, M = W_k L is made for each pair.
#pragma once

#include <cstring>
#include <limits>

#include "common/lanes.h"
#include "common/log_product.h"
#include "common/tile.h"
#include "ops/pivot_kl/pivot_sums.h"

namespace cvf::pivot_kl::CVF_ISA {

template <class T>
class GroupKernel {
  using V = Vec<T>;
  using Int = typename Simd<T>::Int;
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kTileRows = 8;                   // where one vector of a row is enough
  static constexpr int kTile = kManyRegisters ? 4 : 3;  // rows and columns, where samples stand across lanes

 public:
  GroupKernel(const Arguments<T>& args, const Pivots<T>& pivots, PivotSums<T>& sums, int thread)
      : args_(args),
        pivots_(pivots),
        sums_(sums),
        thread_(thread),
        d_(args.d),
        row_(padded_row<T>(args.d)),
        full_(args.scale_tril),
        factor_row_(d_ < kWidth ? d_ : d_ | 1),
        moment_size_(PivotSums<T>::moment_size(args)),
        packed_(full_ && args.grad_scale_tril ? Packed<T>::size(d_) : 0),
        loc_(d_),
        factor_(full_ ? d_ * factor_row_ + kLanePadding<T> : d_),
        variance_(d_),
        inverse_diagonal_(d_),
        residual_(d_),
        spread_(d_),
        loc_gradient_(d_),
        factor_gradient_(full_ ? d_ * d_ : d_),
        log_sigma_sum_(d_),
        moment_(moment_size_),
        packed_product_(packed_),
        product_(packed_ > 0 ? d_ * factor_row_ : 0),
        pairs_(std::max<int64_t>(args.pivots, kWidth)),
        loc_rows_(kWidth * row_),
        moment_rows_(kWidth * moment_size_) {
    std::fill_n(loc_rows_.data(), kWidth * row_, T(0));
    std::fill_n(moment_.data(), moment_size_, V{});
    std::fill_n(factor_.data(), full_ ? d_ * factor_row_ : d_, V{});
  }

  void run(LaneGroup group) {
    group_ = group;
    load_group();
    if (args_.wants_gradient()) {
      gradients();
    } else if (args_.reduction == Reduction::kNone) {
      write_all();
    } else if (args_.reduction == Reduction::kMin) {
      write_smallest();
    } else {
      write_logsumexp();
    }
  }

 private:
  void load_group() {
    gather_lanes(args_.loc, group_, d_, args_.loc.end(args_.batch, d_), loc_.data());
    LogProduct<T> product;
    if (full_) {
      load_factor();
    } else {
      gather_lanes(args_.scale, group_, d_, args_.scale.end(args_.batch, d_), factor_.data());
      for (int64_t i = 0; i < d_; ++i) variance_[i] = factor_[i] * factor_[i];
    }
    for (int64_t i = 0; i < d_; ++i) {
      const V scale = factor_[full_ ? i * (factor_row_ + 1) : i];
      product.multiply(scale);
      inverse_diagonal_[i] = T(1) / scale;
    }
    for (int lane = 0; lane < kWidth; ++lane) {
      log_ratio_[lane] = static_cast<T>(pivots_.log_det() - product.log(lane));
    }
  }

  // L, zero above the diagonal.
  void load_factor() {
    const T* end = args_.scale_tril.end(args_.batch, d_ * d_);
    if (d_ >= kWidth) {  // what stands above the diagonal stays zero
      gather_triangle(args_.scale_tril, group_, d_, 1, end, factor_row_, factor_.data());
      return;
    }
    gather_lanes(args_.scale_tril, group_, d_ * d_, end, factor_.data());
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = i + 1; j < d_; ++j) factor_[i * d_ + j] = V{};
    }
  }

  // KL of the group from pivot k. Leaves r in `residual_` and, for full posteriors, |M_i|^2 in `spread_`.
  CVF_INLINE V divergence(int64_t k) {
    const V spread = full_ ? full_spread(k) : diagonal_spread(k);
    return T(0.5) * (spread + residual(k) - static_cast<T>(d_)) + log_ratio_;
  }

  // r = W_k loc - b_k; returns |D^-1/2 r|^2, the sum of squares of what is small where loc fits the pivot.
  V residual(int64_t k) {
    const T* jac = pivots_.jac(k);
    const T* offset = args_.offset[k];
    V sum{};
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      constexpr int kRows = rows;
      V acc[kRows][1];
      for (int r = 0; r < kRows; ++r) acc[r][0] = loc_[i + r] - offset[i + r];
      multiply_tile<-1, T>(acc, Left<T>{jac + i * d_, d_, 1}, Right<T>{loc_.data(), 1, 1}, 0, i + kRows - 1);
      for (int r = 0; r < kRows; ++r) {
        residual_[i + r] = acc[r][0];
        sum += pivots_.precision(i + r) * acc[r][0] * acc[r][0];
      }
    });
    return sum;
  }

  V diagonal_spread(int64_t k) const {
    const T* norm = pivots_.column_norm(k);
    V sums[4] = {};  // four, since one would wait for itself
    int64_t j = 0;
    for (; j + 4 <= d_; j += 4) {
      for (int c = 0; c < 4; ++c) sums[c] += norm[j + c] * variance_[j + c];
    }
    for (; j < d_; ++j) sums[0] += norm[j] * variance_[j];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  V full_spread(int64_t k) {
    const T* jac = pivots_.jac(k);
    for (int64_t i = 0; i < d_; ++i) spread_[i] = V{};
    for_tiles<kTile>(0, d_, [&](auto columns, int64_t c) {
      for_tiles<kTile>(c, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int j = 0; j < kColumns; ++j) acc[r][j] = factor_[(i + r) * factor_row_ + c + j];
        }
        const Right<T> right{&factor_[c], factor_row_, 1};
        multiply_tile<-1, T>(acc, Left<T>{jac + i * d_, d_, 1}, right, c, i + kRows - 1);
        for (int r = 0; r < kRows; ++r) {
          for (int j = 0; j < kColumns; ++j) spread_[i + r] += acc[r][j] * acc[r][j];
        }
      });
    });
    V sum{};
    for (int64_t i = 0; i < d_; ++i) sum += pivots_.precision(i) * spread_[i];
    return sum;
  }

  void write_all() {
    for (int64_t begin = 0; begin < args_.pivots; begin += kWidth) {
      const int64_t count = std::min<int64_t>(kWidth, args_.pivots - begin);
      V block[kWidth] = {};
      for (int64_t k = 0; k < count; ++k) block[k] = divergence(begin + k);
      transpose<T>(block);
      for (int64_t lane = 0; lane < group_.count; ++lane) {
        store_partial<T>(args_.value + (group_.first + lane) * args_.pivots + begin, block[lane], count);
      }
    }
  }

  // The first of the smallest, or the first NaN.
  void write_smallest() {
    V smallest = V{} + std::numeric_limits<T>::infinity();
    Int index{};
    for (int64_t k = 0; k < args_.pivots; ++k) {
      const V kl = divergence(k);
      const Int better = (kl < smallest) | ((kl != kl) & (smallest == smallest));
      smallest = better ? kl : smallest;
      index = better ? Int{} + static_cast<decltype(index[0] + 0)>(k) : index;
    }
    store_partial<T>(args_.value + group_.first, smallest, group_.count);
    for (int64_t lane = 0; lane < group_.count; ++lane) args_.index[group_.first + lane] = index[lane];
  }

  void write_logsumexp() {
    for (int64_t k = 0; k < args_.pivots; ++k) pairs_[k] = divergence(k);
    V smallest = pairs_[0];
    for (int64_t k = 1; k < args_.pivots; ++k) smallest = pairs_[k] < smallest ? pairs_[k] : smallest;
    double sums[kWidth] = {};
    for (int64_t k = 0; k < args_.pivots; ++k) {
      const V distance = smallest - pairs_[k];
      for (int64_t lane = 0; lane < group_.count; ++lane) {
        sums[lane] += static_cast<double>(exponential(distance[lane]));
      }
    }
    for (int64_t lane = 0; lane < group_.count; ++lane) {
      const double mean = sums[lane] / static_cast<double>(args_.pivots);
      const bool infinite = smallest[lane] == std::numeric_limits<T>::infinity();  // then all are, or one is NaN
      const double correction = infinite && !std::isnan(last_nan(lane)) ? 0 : std::log(mean);
      args_.value[group_.first + lane] = static_cast<T>(static_cast<double>(smallest[lane]) - correction);
    }
  }

  // exp(x), without a call where it is zero, as it is of most pairs.
  static CVF_INLINE T exponential(T x) { return x < (sizeof(T) == 4 ? T(-104) : T(-746)) ? T(0) : std::exp(x); }

  // NaN if one of the divergences of a lane is.
  T last_nan(int64_t lane) const {
    T sum = 0;
    for (int64_t k = 0; k < args_.pivots; ++k) sum += pairs_[k][lane];
    return sum;
  }

  void gradients() {
    for (int64_t j = 0; j < d_; ++j) loc_gradient_[j] = factor_gradient_[j] = log_sigma_sum_[j] = V{};
    std::fill_n(packed_product_.data(), packed_, V{});
    load_loc_rows();
    if (moment_size_ > 0) load_moment_rows();
    V weight_sum{};
    for (int64_t k = 0; k < args_.pivots; ++k) {
      pairs_[k] = V{};
      if (args_.reduction == Reduction::kMin && !is_closest(k)) continue;
      const V weight = pair_weight(k, divergence(k));
      pairs_[k] = weight;
      weight_sum += weight;
      pair_gradients(k, weight);
      if (args_.reduction == Reduction::kMin) add_weighted(k, k + 1);
    }
    if (args_.reduction != Reduction::kMin) add_weighted(0, args_.pivots);
    write_gradients(weight_sum);
  }

  bool is_closest(int64_t k) const {
    for (int64_t lane = 0; lane < group_.count; ++lane) {
      if (args_.index[group_.first + lane] == k) return true;
    }
    return false;
  }

  // dloss/dKL_bk; 0 in lanes without a sample.
  V pair_weight(int64_t k, V kl) const {
    V weight{};
    for (int64_t lane = 0; lane < group_.count; ++lane) {
      const int64_t sample = group_.first + lane;
      const T* upstream = args_.upstream[sample];
      if (args_.reduction == Reduction::kNone) {
        weight[lane] = upstream[k];
      } else if (args_.reduction == Reduction::kMin) {
        weight[lane] = args_.index[sample] == k ? *upstream : T(0);
      } else {
        weight[lane] = *upstream * exponential(args_.value[sample] - kl[lane]) / static_cast<T>(args_.pivots);
      }
    }
    return weight;
  }

  // What one pair adds to all gradients, but for those that `add_weighted` adds. Leaves c D^-1 r in `residual_`.
  void pair_gradients(int64_t k, V weight) {
    for (int64_t i = 0; i < d_; ++i) {
      const V r = residual_[i];
      const T precision = pivots_.precision(i);
      const V spread = full_ ? spread_[i] + r * r : r * r;
      log_sigma_sum_[i] += weight * (T(1) - precision * spread);
      residual_[i] = weight * precision * r;
    }
    if (args_.grad_offset) add_offset_gradient(sums_.offset(thread_, k));
    if (args_.grad_loc) add_loc_gradient(pivots_.jac(k));
    if (args_.grad_jac) add_jac_gradient(sums_.residual.of(thread_, k));
    if (full_) return;
    const T* norm = pivots_.column_norm(k);
    for (int64_t j = 0; j < d_; ++j) factor_gradient_[j] += weight * norm[j];
  }

  // sum (d,) += c D^-1 r over the samples.
  void add_offset_gradient(double* sum) {
    for (int64_t i = 0; i < d_; i += kWidth) {
      const int64_t count = std::min<int64_t>(kWidth, d_ - i);
      V rows[kWidth];
      for (int r = 0; r < kWidth; ++r) rows[r] = r < count ? residual_[i + r] : V{};
      const V added = sum_rows<T>(rows);
      for (int64_t r = 0; r < count; ++r) sum[i + r] += static_cast<double>(added[r]);
    }
  }

  // dloc += c W_k^T D^-1 r
  void add_loc_gradient(const T* jac) {
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t j) {
      constexpr int kRows = rows;
      V acc[kRows][1];
      for (int r = 0; r < kRows; ++r) acc[r][0] = loc_gradient_[j + r] + residual_[j + r];
      multiply_tile<-1, T>(acc, Left<T>{jac + j, 1, d_}, Right<T>{residual_.data(), 1, 1}, j + 1, d_);
      for (int r = 0; r < kRows; ++r) loc_gradient_[j + r] = acc[r][0];
    });
  }

  // sum (d, row) += c D^-1 r loc^T over the samples, with lanes over columns.
  void add_jac_gradient(T* sum) {
    const int64_t row_vectors = row_ / kWidth;
    for (int64_t panel = 0; panel < row_vectors; ++panel) {
      const int64_t j = panel * kWidth;
      const Right<T> right{reinterpret_cast<const V*>(loc_rows_.data()) + panel, row_vectors, 1};
      for_tiles<kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        V acc[kRows][1];
        for (int r = 0; r < kRows; ++r) acc[r][0] = load(sum + (i + r) * row_ + j);
        const Left<T> left{reinterpret_cast<const T*>(&residual_[i]), kWidth, 1};
        multiply_tile<1, T>(acc, left, right, 0, group_.count);
        for (int r = 0; r < kRows; ++r) store(sum + (i + r) * row_ + j, acc[r][0]);
      });
    }
  }

  void load_loc_rows() {
    for (int64_t lane = 0; lane < group_.count; ++lane) {
      std::memcpy(&loc_rows_[lane * row_], args_.loc[group_.first + lane], static_cast<size_t>(d_) * sizeof(T));
    }
  }

  // S = L L^T, or s^2, one sample after the other.
  void load_moment_rows() {
    if (full_) {
      multiply_factor();
    } else {
      std::copy_n(variance_.data(), d_, moment_.data());
    }
    for (int64_t e = 0; e < moment_size_; e += kWidth) {
      V block[kWidth];
      for (int r = 0; r < kWidth; ++r) block[r] = moment_[e + r];
      transpose<T>(block);
      for (int r = 0; r < kWidth; ++r) store(&moment_rows_[r * moment_size_ + e], block[r]);
    }
  }

  // L L^T, packed.
  void multiply_factor() {
    for_tiles<kTile>(0, d_, [&](auto columns, int64_t c) {
      for_tiles<kTile>(c, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns] = {};
        const Left<V> left{&factor_[i * factor_row_], factor_row_, 1};
        multiply_tile<1, T>(acc, left, Right<T>{&factor_[c * factor_row_], 1, factor_row_}, 0, c + kColumns);
        for (int64_t r = 0; r < kRows; ++r) {
          for (int64_t j = 0; j < kColumns && c + j <= i + r; ++j) {
            moment_[(i + r) * (i + r + 1) / 2 + c + j] = acc[r][j];
          }
        }
      });
    });
  }

  // Weighted sums of matrices, with the weights c of pivots [begin, end) in `pairs_`: sum_k c W_k^T D^-1 W_k, which is
  // to be multiplied by L, for each sample, and sum_b c L L^T or c s^2 for each pivot.
  void add_weighted(int64_t begin, int64_t end) {
    constexpr int kBlock = Packed<T>::kBlock;
    for (int64_t e = 0; e < packed_; e += kBlock) {
      V acc[kBlock][1];
      for (int r = 0; r < kBlock; ++r) acc[r][0] = packed_product_[e + r];
      const Left<T> left{pivots_.product_block(e), 1, kBlock};
      multiply_tile<1, T>(acc, left, Right<T>{pairs_.data(), 1, 1}, begin, end);
      for (int r = 0; r < kBlock; ++r) packed_product_[e + r] = acc[r][0];
    }
    if (moment_size_ == 0) return;
    for_tiles<kTileRows>(begin, end, [&](auto rows, int64_t k) {
      constexpr int kRows = rows;
      T* sum = sums_.moment.of(thread_, k);
      for (int64_t e = 0; e < moment_size_; e += kWidth) {
        V acc[kRows][1];
        for (int r = 0; r < kRows; ++r) acc[r][0] = load(sum + r * moment_size_ + e);
        const Right<T> right{reinterpret_cast<const V*>(&moment_rows_[e]), moment_size_ / kWidth, 1};
        multiply_tile<1, T>(acc, Left<T>{reinterpret_cast<const T*>(&pairs_[k]), kWidth, 1}, right, 0, group_.count);
        for (int r = 0; r < kRows; ++r) store(sum + r * moment_size_ + e, acc[r][0]);
      }
    });
  }

  void write_gradients(V weight_sum) {
    double* log_sigma_total = sums_.log_sigma(thread_);
    for (int64_t i = 0; i < d_; ++i) log_sigma_total[i] += static_cast<double>(sum_lanes<T>(log_sigma_sum_[i]));
    if (args_.grad_loc) scatter_lanes<T>(loc_gradient_.data(), group_, d_, args_.grad_loc);
    if (args_.grad_scale) {
      // ds_j = s_j sum_k c (column norm) - sum_k c / s_j
      for (int64_t j = 0; j < d_; ++j) {
        factor_gradient_[j] = factor_[j] * factor_gradient_[j] - weight_sum * inverse_diagonal_[j];
      }
      scatter_lanes<T>(factor_gradient_.data(), group_, d_, args_.grad_scale);
    }
    if (args_.grad_scale_tril) {
      scale_tril_gradient(weight_sum);
      scatter_lanes<T>(factor_gradient_.data(), group_, d_ * d_, args_.grad_scale_tril);
    }
  }

  // dL = (sum_k c W_k^T D^-1 W_k) L - (sum_k c) diag(1 / L_ii), on and below the diagonal.
  void scale_tril_gradient(V weight_sum) {
    const V* packed = packed_product_.data();
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j <= i; ++j) product_[i * factor_row_ + j] = product_[j * factor_row_ + i] = *packed++;
    }
    for_tiles<kTile>(0, d_, [&](auto columns, int64_t c) {
      for_tiles<kTile>(c, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns] = {};
        const Left<V> left{&product_[i * factor_row_], factor_row_, 1};
        multiply_tile<1, T>(acc, left, Right<T>{&factor_[c], factor_row_, 1}, c, d_);
        for (int r = 0; r < kRows; ++r) {
          for (int j = 0; j < kColumns; ++j) factor_gradient_[(i + r) * d_ + c + j] = acc[r][j];
        }
      });
    });
    for (int64_t i = 0; i < d_; ++i) {
      factor_gradient_[i * (d_ + 1)] -= weight_sum * inverse_diagonal_[i];
      for (int64_t j = i + 1; j < d_; ++j) factor_gradient_[i * d_ + j] = V{};
    }
  }

  const Arguments<T>& args_;
  const Pivots<T>& pivots_;
  PivotSums<T>& sums_;
  const int thread_;
  const int64_t d_, row_;
  const bool full_;
  const int64_t factor_row_;  // vectors between rows of L: odd, so that they do not compete for lines of the cache
  const int64_t moment_size_, packed_;
  LaneGroup group_{};
  V log_ratio_{};  // sum_i log sigma_i - sum_i log L_ii
  Scratch<V> loc_;
  Scratch<V> factor_;  // (d, factor_row): L, zero above the diagonal; or (d,): s
  Scratch<V> variance_, inverse_diagonal_;
  Scratch<V> residual_, spread_;
  Scratch<V> loc_gradient_;
  Scratch<V> factor_gradient_;  // (d, d): of L; or (d,): sum_k c (column norm), then of s
  Scratch<V> log_sigma_sum_;
  Scratch<V> moment_;          // (moment_size,): L L^T, packed; or s^2
  Scratch<V> packed_product_;  // sum_k c W_k^T D^-1 W_k, packed
  Scratch<V> product_;         // (d, factor_row): the same
  Scratch<V> pairs_;           // (K,): divergences, or their weights in the loss
  Scratch<T> loc_rows_;        // (lanes, row), padded with zeros
  Scratch<T> moment_rows_;     // (lanes, moment_size)
};

}  // namespace cvf::pivot_kl::CVF_ISA
