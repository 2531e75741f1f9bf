// sem_kl for small d: samples across SIMD lanes, so that no lane idles however small d is.
//
// The matrices of a group of samples are transposed into vectors on the way in, and the gradients back on the way
// out. In between, every scalar operation of the formula is one vector operation for the whole group.
#pragma once

#include "common/lanes.h"
#include "common/log_product.h"
#include "common/tile.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

// Working memory of one thread, and the computation on one group at a time. Matrices are (d, d) vectors, row-major.
template <class T>
class LaneKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;

 public:
  static int64_t group_size() { return kLanes<T>; }

  LaneKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        d_(args.d),
        row_(d_ < kWidth ? d_ : d_ | 1),
        full_(args.scale_tril),
        jac_writer_(writer(args.grad_jac, args.jac_layout())),
        scale_tril_writer_(writer(args.grad_scale_tril, args.scale_tril_layout())),
        jac_(d_ * row_ + kPadding),
        factor_(full_ ? d_ * row_ + kPadding : d_),
        scaled_(full_ ? d_ * row_ : d_),
        gradient_(kPadding + kTileRows * d_ + std::max<int64_t>(kWidth, by_rows() ? 0 : d_ * (d_ + 1) / 2)),
        dense_(by_rows() ? 0 : d_ * d_),
        loc_(d_),
        offset_(d_),
        residual_(d_),
        spread_(d_),
        inverse_diagonal_(d_),
        work_(d_),
        jac_sum_(args.shared_jac ? d_ * row_ : 0),
        offset_sum_(d_),
        log_sigma_sum_(d_) {
    // Upper triangles stay zero throughout.
    for (int64_t k = 0; k < d_ * row_; ++k) jac_[k] = V{};
    for (int64_t k = 0; full_ && k < d_ * row_; ++k) factor_[k] = scaled_[k] = V{};
    for (int64_t k = 0; !by_rows() && k < d_ * d_; ++k) dense_[k] = V{};
    if (args.shared_jac) {
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t j = 0; j < d_; ++j) {
          jac_[i * row_ + j] = j < i ? broadcast(args.jac.data[args.jac_layout().row(i) + j]) : V{};
          jac_sum_[i * row_ + j] = V{};
        }
      }
    }
    if (args.shared_offset) {
      for (int64_t i = 0; i < d_; ++i) offset_[i] = broadcast(args.offset.data[i]);
    }
    for (int64_t i = 0; i < d_; ++i) offset_sum_[i] = log_sigma_sum_[i] = V{};
  }

  void run(LaneGroup group) {
    load_group(group);
    residual();
    const V log_det = full_ ? full_spread() : diagonal_spread();
    if (args_.value) write_value(group, log_det);
    if (args_.wants_gradient()) {
      load_upstream(group);
      if (full_) {
        full_gradients(group);
      } else {
        diagonal_gradients(group);
      }
      vector_gradients(group);
    }
  }

  // To be called after the last group.
  void finish() const {
    jac_writer_.finish();
    scale_tril_writer_.finish();
  }

  // Adds what has been summed over samples to a thread's totals.
  void flush(SharedSums<T>& sums, int thread) {
    for (int64_t i = 0; i < d_; ++i) {
      sums.offset(thread)[i] += static_cast<double>(take_sum(offset_sum_[i]));
      sums.log_sigma(thread)[i] += static_cast<double>(take_sum(log_sigma_sum_[i]));
    }
    if (sums.sums_jac()) {
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t j = 0; j < i; ++j) sums.jac(thread)[i * d_ + j] += take_sum(jac_sum_[i * row_ + j]);
      }
      sums.flush_jac(thread);
    }
  }

 private:
  // Accumulators, right operands and one left operand have to fit in the registers.
  static constexpr int kTileRows = kManyRegisters ? 4 : 3;
  static constexpr int kTileColumns = kTileRows;
  static constexpr int64_t kPadding = kLanePadding<T>;

  static CVF_INLINE T take_sum(V& v) {
    const T sum = sum_lanes<T>(v);
    v = V{};
    return sum;
  }

  void load_group(LaneGroup group) {
    if (!args_.shared_jac) load_triangle(args_.jac, args_.jac_layout(), group, 0, jac_.data());
    if (!args_.shared_offset) {
      gather_lanes(args_.offset, group, d_, args_.offset.end(args_.batch, d_), offset_.data());
    }
    gather_lanes(args_.loc, group, d_, args_.loc.end(args_.batch, d_), loc_.data());
    if (full_) {
      load_triangle(args_.scale_tril, args_.scale_tril_layout(), group, 1, factor_.data());
    } else {
      gather_lanes(args_.scale, group, d_, args_.scale.end(args_.batch, d_), factor_.data());
    }
  }

  // Whether matrices are moved between samples and lanes row by row. Rows shorter than a vector are taken together.
  bool by_rows() const { return d_ >= kWidth; }

  void load_triangle(const Batched<T>& matrices, const TriangleLayout& layout, LaneGroup group, int64_t diagonal,
                     V* out) {
    const T* end = matrices.end(args_.batch, layout.size());
    if (layout.packed) {
      gather_packed_triangle(matrices, group, d_, end, row_, out);
      for (int64_t i = 0; !diagonal && i < d_; ++i) out[i * (row_ + 1)] = V{};
      return;
    }
    if (by_rows()) return gather_triangle(matrices, group, d_, diagonal, end, row_, out);
    gather_lanes(matrices, group, d_ * d_, end, out);
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = i + diagonal; j < d_; ++j) out[i * row_ + j] = V{};
    }
  }

  RowWriter<T> writer(const T* gradient, const TriangleLayout& layout) const {
    return layout.packed ? RowWriter<T>(gradient, args_.batch, layout.size())
                         : RowWriter<T>(gradient, args_.batch * d_, d_);
  }

  // Where row i of the gradient in hand is put, the diagonal included, until `write_rows`.
  V* gradient_row(int64_t i) { return &gradient_[i * (i + 1) / 2 - written_]; }

  // Rows [first, end) of the gradient in hand to `out`: i + diagonal elements of row i, and zeros.
  CVF_INLINE void write_rows(LaneGroup group, int64_t first, int64_t end, int64_t diagonal, bool packed,
                             const RowWriter<T>& writer, T* out) {
    for (int64_t i = first; i < end && !diagonal; ++i) gradient_row(i)[i] = V{};
    const int64_t computed = end * (end + 1) / 2;
    if (packed) {
      write_packed(group, computed, writer, out);
    } else if (by_rows()) {
      for (int64_t i = first; i < end; ++i) scatter_row(gradient_row(i), i + diagonal, group, d_, i, writer, out);
      written_ = computed;
    } else if (end == d_) {
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t j = 0; j <= i; ++j) dense_[i * d_ + j] = gradient_row(i)[j];
      }
      scatter_lanes<T>(dense_.data(), group, d_ * d_, out);
    }
  }

  // Of the first `computed` elements of the gradient in hand, those that fill whole vectors and were not written.
  void write_packed(LaneGroup group, int64_t computed, const RowWriter<T>& writer, T* out) {
    const int64_t size = d_ * (d_ + 1) / 2;
    const int64_t ready = computed == size ? size - written_ : (computed - written_) / kWidth * kWidth;
    if (ready == 0) return;
    scatter_columns(gradient_.data(), written_, ready, group.count, writer, out + group.first * size, size);
    for (int64_t k = ready; k < computed - written_; ++k) gradient_[k - ready] = gradient_[k];
    written_ += ready;
  }

  CVF_INLINE void write_jac_rows(LaneGroup group, int64_t first, int64_t end) {
    if (!args_.shared_jac) {
      return write_rows(group, first, end, 0, args_.packed_jac, jac_writer_, args_.grad_jac);
    }
    for (int64_t i = first; i < end; ++i) {
      for (int64_t j = 0; j < i; ++j) jac_sum_[i * row_ + j] += gradient_row(i)[j];
    }
    written_ = end * (end + 1) / 2;
  }

  // Lanes without a sample get 0, so that they add nothing to a sum.
  void load_upstream(LaneGroup group) {
    upstream_ = V{};
    for (int64_t lane = 0; lane < group.count; ++lane) {
      upstream_[lane] = *args_.upstream[group.first + lane];
    }
  }

  // r = W loc - b
  void residual() {
    for (int64_t i = 0; i < d_; ++i) {
      V sum = loc_[i] - offset_[i];
      for (int64_t j = 0; j < i; ++j) sum -= jac_[i * row_ + j] * loc_[j];
      residual_[i] = sum;
    }
  }

  // M = W L, kept as D^-1 M; |M_i|^2; the logarithm of the determinant of L.
  CVF_INLINE V full_spread() {
    for (int64_t i = 0; i < d_; ++i) spread_[i] = V{};
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      for_tiles<kTileColumns>(0, i + rows, [&](auto columns, int64_t k) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) acc[r][c] = factor_[(i + r) * row_ + k + c];
        }
        multiply_tile<-1, T>(acc, Left<V>{&jac_[i * row_], row_, 1}, Right<T>{&factor_[k], row_, 1}, k, i + kRows - 1);
        for (int r = 0; r < kRows; ++r) {
          const T precision = noise_.precision(i + r);
          for (int c = 0; c < kColumns; ++c) {
            spread_[i + r] += acc[r][c] * acc[r][c];
            scaled_[(i + r) * row_ + k + c] = precision * acc[r][c];
          }
        }
      });
    });
    return diagonal_log_det(row_ + 1);
  }

  // |M_i|^2 = s_i^2 + sum_j A_ij^2 s_j^2; `scaled_` holds s_j^2.
  CVF_INLINE V diagonal_spread() {
    for (int64_t j = 0; j < d_; ++j) scaled_[j] = factor_[j] * factor_[j];
    for (int64_t i = 0; i < d_; ++i) {
      V sum = scaled_[i];
      for (int64_t j = 0; j < i; ++j) sum += jac_[i * row_ + j] * jac_[i * row_ + j] * scaled_[j];
      spread_[i] = sum;
    }
    return diagonal_log_det(1);
  }

  CVF_INLINE V diagonal_log_det(int64_t step) {
    LogProduct<T> product;
    for (int64_t i = 0; i < d_; ++i) {
      product.multiply(factor_[i * step]);
      inverse_diagonal_[i] = T(1) / factor_[i * step];
    }
    V log_det;
    for (int lane = 0; lane < kLanes<T>; ++lane) log_det[lane] = static_cast<T>(product.log(lane));
    return log_det;
  }

  CVF_INLINE void write_value(LaneGroup group, V log_det) {
    V mahalanobis{};
    for (int64_t i = 0; i < d_; ++i) {
      mahalanobis += noise_.precision(i) * (spread_[i] + residual_[i] * residual_[i]);
    }
    const V value = T(0.5) * (mahalanobis - static_cast<T>(d_)) + (static_cast<T>(noise_.log_det) - log_det);
    store_partial<T>(args_.value + group.first, value, group.count);
  }

  void full_gradients(LaneGroup group) {
    if (args_.grad_scale_tril) scale_tril_gradient(group);
    if (args_.grad_jac) full_jac_gradient(group);
  }

  // dL = g (W^T D^-1 M - diag(1 / L_ii))
  void scale_tril_gradient(LaneGroup group) {
    written_ = 0;
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t j) {
      for_tiles<kTileColumns>(0, j + rows, [&](auto columns, int64_t k) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) acc[r][c] = scaled_[(j + r) * row_ + k + c];
        }
        multiply_tile<-1, T>(acc, Left<V>{&jac_[j], 1, row_}, Right<T>{&scaled_[k], row_, 1}, j + 1, d_);
        for (int r = 0; r < kRows; ++r) {
          V* row = gradient_row(j + r);
          for (int c = 0; c < kColumns; ++c) {
            if (k + c <= j + r) row[k + c] = upstream_ * acc[r][c];
          }
        }
      });
      for (int r = 0; r < rows; ++r) gradient_row(j + r)[j + r] -= upstream_ * inverse_diagonal_[j + r];
      write_rows(group, j, j + rows, 1, args_.packed_scale_tril, scale_tril_writer_, args_.grad_scale_tril);
    });
  }

  // dA = -g (D^-1 M L^T + D^-1 r loc^T), below the diagonal.
  void full_jac_gradient(LaneGroup group) {
    written_ = 0;
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      for_tiles<kTileColumns>(0, i + rows, [&](auto columns, int64_t j) {
        constexpr int kRows = rows, kColumns = columns;
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) {
            acc[r][c] = noise_.precision(i + r) * residual_[i + r] * loc_[j + c];
          }
        }
        multiply_tile<1, T>(acc, Left<V>{&scaled_[i * row_], row_, 1}, Right<T>{&factor_[j * row_], 1, row_}, 0,
                            j + kColumns);
        for (int r = 0; r < kRows; ++r) {
          V* row = gradient_row(i + r);
          for (int c = 0; c < kColumns; ++c) {
            if (j + c < i + r) row[j + c] = -upstream_ * acc[r][c];
          }
        }
      });
      write_jac_rows(group, i, i + rows);
    });
  }

  // The same for L = diag(s), where D^-1 M L^T = -D^-1 A diag(s^2) below the diagonal; and
  // ds_j = g (s_j sum_i W_ij^2 / sigma_i^2 - 1 / s_j).
  void diagonal_gradients(LaneGroup group) {
    written_ = 0;
    for (int64_t j = 0; j < d_; ++j) work_[j] = broadcast(noise_.precision(j));
    for (int64_t i = 0; i < d_; ++i) {
      const T precision = noise_.precision(i);
      if (!args_.grad_jac) {
        for (int64_t j = 0; j < i; ++j) work_[j] += precision * jac_[i * row_ + j] * jac_[i * row_ + j];
        continue;
      }
      const V weight = upstream_ * precision;
      V* row = gradient_row(i);
      for (int64_t j = 0; j < i; ++j) {
        const V a = jac_[i * row_ + j];
        work_[j] += precision * a * a;
        row[j] = weight * (a * scaled_[j] - residual_[i] * loc_[j]);
      }
      write_jac_rows(group, i, i + 1);
    }
    if (args_.grad_scale) {
      for (int64_t j = 0; j < d_; ++j) {
        work_[j] = upstream_ * (factor_[j] * work_[j] - inverse_diagonal_[j]);
      }
      scatter_lanes<T>(work_.data(), group, d_, args_.grad_scale);
    }
  }

  // db = -g D^-1 r, dloc = g W^T D^-1 r, dlog_sigma_i = g (1 - (|M_i|^2 + r_i^2) / sigma_i^2)
  void vector_gradients(LaneGroup group) {
    for (int64_t i = 0; i < d_; ++i) {
      const T precision = noise_.precision(i);
      log_sigma_sum_[i] += upstream_ * (T(1) - precision * (spread_[i] + residual_[i] * residual_[i]));
      residual_[i] = upstream_ * precision * residual_[i];
    }
    if (args_.grad_loc) {
      for (int64_t j = 0; j < d_; ++j) {
        V sum = residual_[j];
        for (int64_t i = j + 1; i < d_; ++i) sum -= jac_[i * row_ + j] * residual_[i];
        work_[j] = sum;
      }
      scatter_lanes<T>(work_.data(), group, d_, args_.grad_loc);
    }
    for (int64_t i = 0; i < d_; ++i) {
      residual_[i] = -residual_[i];
      offset_sum_[i] += residual_[i];
    }
    if (args_.grad_offset && !args_.shared_offset) {
      scatter_lanes<T>(residual_.data(), group, d_, args_.grad_offset);
    }
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const int64_t d_;
  const int64_t row_;  // vectors between rows: an odd number, since a power of two would use few sets of the cache
  const bool full_;
  const RowWriter<T> jac_writer_, scale_tril_writer_;
  V upstream_{};
  int64_t written_ = 0;  // elements of the triangle of the gradient in hand that have left its buffer
  Scratch<V> jac_;       // (d, row): A, zero on and above the diagonal
  Scratch<V> factor_;    // (d, row): L, zero above the diagonal; or (d,): s
  Scratch<V> scaled_;    // (d, row): D^-1 M; or (d,): s^2
  Scratch<V> gradient_;  // packed: the gradient of L, then of A, from its first element that is not written on
  Scratch<V> dense_;     // (d, d), zero above the diagonal: a gradient whose rows are shorter than a vector
  Scratch<V> loc_, offset_, residual_, spread_, inverse_diagonal_, work_;  // (d,) each
  Scratch<V> jac_sum_, offset_sum_, log_sigma_sum_;  // summed over the thread's samples since the last flush
};

}  // namespace cvf::sem_kl::CVF_ISA
