// sem_kl for a full posterior and large d: one sample at a time, its triangular products in register tiles.
//
// The lower triangles are copied into padded buffers with zeros above the diagonal, so that tiles on the diagonal
// need no masks; tiles above it are never visited.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/output.h"
#include "common/prefetch.h"
#include "common/tile.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

template <class T>
class TileKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kTileRows = 8;
  static constexpr int kTileColumns = 1;  // in vectors
  // Lines of each matrix of the next sample that are asked for after each tile. The three products have d^2 / 85 tiles,
  // a triangle d^2 / 32 lines.
  static constexpr int kAhead = 3;

 public:
  // Elements between the rows of a padded (d, d) matrix: an odd number of vectors, since rows a large power of two
  // apart would compete for the same lines of the cache.
  static int64_t padded_row(int64_t d) {
    const int64_t vectors = round_up(d, kWidth) / kWidth;
    return (vectors + 1 - vectors % 2) * kWidth;
  }

  TileKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        d_(args.d),
        row_(padded_row(args.d)),
        panels_(round_up(args.d, kWidth) / kWidth),
        jac_writer_(args.grad_jac, args.batch * args.d, args.d),
        scale_tril_writer_(args.grad_scale_tril, args.batch * args.d, args.d),
        packed_(args.packed_jac || args.packed_scale_tril ? args.d * (args.d + 1) / 2 : 0),
        jac_(d_ * row_),
        factor_(d_ * row_),
        transposed_(row_ * row_),
        scaled_(d_ * row_),
        loc_(row_),
        residual_(row_),
        grad_loc_(row_),
        spread_(row_),
        spread_lanes_(row_) {
    if (args.shared_jac) copy_triangle(args.jac, args.jac_layout(), 0, 0, jac_.data());
    for (int64_t i = 0; i < row_; ++i) loc_[i] = T(0);
  }

  // `jac_sum` (d, padded_row) takes the gradient of a shared jac; `offset_sum` and `log_sigma_sum` (d,) the others
  // that the batch shares.
  void run(int64_t sample, T* jac_sum, double* offset_sum, double* log_sigma_sum) {
    load_sample(sample);
    residual(sample);
    multiply_by_w();
    if (args_.value) args_.value[sample] = value();
    if (!args_.wants_gradient()) return;

    const T upstream = *args_.upstream[sample];
    if (args_.grad_scale_tril) {
      const Output out = output(args_.grad_scale_tril, args_.scale_tril_layout(), sample, &scale_tril_writer_);
      scale_tril_gradient(upstream, out);
      finish(out);
    }
    for (int64_t i = 0; i < d_; ++i) {
      const T spread = spread_[i] + residual_[i] * residual_[i];
      log_sigma_sum[i] += static_cast<double>(upstream * (T(1) - noise_.precision(i) * spread));
      residual_[i] *= upstream * noise_.precision(i);
    }
    if (args_.grad_jac) {
      transpose_factor();
      const Output out = output(args_.grad_jac, args_.jac_layout(), args_.shared_jac ? 0 : sample, &jac_writer_);
      jac_gradient(upstream, out, jac_sum);
      if (!args_.shared_jac) finish(out);
    }
    if (args_.grad_loc) loc_gradient(args_.grad_loc + sample * d_);
    for (int64_t i = 0; i < d_; ++i) offset_sum[i] -= static_cast<double>(residual_[i]);
    if (args_.grad_offset && !args_.shared_offset) {
      for (int64_t i = 0; i < d_; ++i) args_.grad_offset[sample * d_ + i] = -residual_[i];
    }
  }

  // To be called after the last sample.
  void finish() const {
    jac_writer_.finish();
    scale_tril_writer_.finish();
    if (args_.packed_jac || args_.packed_scale_tril) finish_streaming();
  }

 private:
  // Where the gradient of one sample's matrix goes. A packed one, whose rows end within lines, is computed in the cache
  // and goes there in one piece: it comes panel by panel, and half of its stores would cross a line.
  struct Output {
    T* data;
    TriangleLayout layout;
    const RowWriter<T>* writer;
  };

  Output output(T* gradient, const TriangleLayout& layout, int64_t sample, const RowWriter<T>* writer) const {
    return {gradient + sample * layout.size(), layout, writer};
  }

  void finish(const Output& out) const {
    if (!out.layout.packed) return;
    const int64_t bytes = args_.batch * out.layout.size() * static_cast<int64_t>(sizeof(T));
    copy_out(packed_.data(), out.layout.size(), worth_streaming(bytes), out.data);
  }

  // Copies the lower triangle of a sample's matrix, the diagonal included or not, and zeros behind it.
  void copy_triangle(const Batched<T>& matrices, const TriangleLayout& layout, int64_t sample, int64_t diagonal,
                     T* out) const {
    const T* matrix = matrices[sample];
    const T* end = matrices.end(args_.batch, layout.size());
    for (int64_t i = 0; i < d_; ++i) {
      const int64_t length = i + diagonal;
      const T* source = matrix + layout.row(i);
      T* target = out + i * row_;
      int64_t j = 0;
      for (; j < length; j += kWidth) {
        store(target + j, j + kWidth <= length ? load(source + j) : load_first(source + j, length - j, end));
      }
      for (; j < row_; j += kWidth) store(target + j, V{});
    }
  }

  void load_sample(int64_t sample) {
    if (!args_.shared_jac) copy_triangle(args_.jac, args_.jac_layout(), sample, 0, jac_.data());
    copy_triangle(args_.scale_tril, args_.scale_tril_layout(), sample, 1, factor_.data());
    std::memcpy(loc_.data(), args_.loc[sample], static_cast<size_t>(d_) * sizeof(T));
    if (sample + 1 < args_.batch) {
      ahead_.start({args_.shared_jac ? nullptr : args_.jac[sample + 1], args_.jac_layout()},
                   {args_.scale_tril[sample + 1], args_.scale_tril_layout()});
    }
  }

  const V* vectors(const Scratch<T>& matrix, int64_t row) const {
    return reinterpret_cast<const V*>(matrix.data() + row * row_);
  }

  // r = W loc - b
  void residual(int64_t sample) {
    const T* offset = args_.offset[sample];
    for (int64_t i = 0; i < d_; i += kWidth) {
      V rows[kWidth] = {};
      for (int64_t r = 0; r < kWidth && i + r < d_; ++r) {
        for (int64_t j = 0; j < i + r; j += kWidth) rows[r] += load_at(jac_, i + r, j) * load(&loc_[j]);
      }
      store(&residual_[i], load(&loc_[i]) - sum_rows<T>(rows));
    }
    for (int64_t i = 0; i < d_; ++i) residual_[i] -= offset[i];
  }

  CVF_INLINE V load_at(const Scratch<T>& matrix, int64_t i, int64_t j) const { return load(&matrix[i * row_ + j]); }

  // M = W L, kept as D^-1 M, and |M_i|^2.
  void multiply_by_w() {
    for (int64_t i = 0; i < row_; ++i) spread_lanes_[i] = V{};
    for_tiles<kTileColumns>(0, panels_, [&](auto columns, int64_t panel) {
      constexpr int kColumns = columns;
      const int64_t k = panel * kWidth;
      const Right<T> right{vectors(factor_, 0) + panel, row_ / kWidth, 1};
      for_tiles<kTileRows>(k, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        V acc[kRows][kColumns];
        load_tile(factor_, i, k, acc);
        multiply_tile<-1, T>(acc, Left<T>{&jac_[i * row_], row_, 1}, right, k, i + kRows - 1);
        for (int r = 0; r < kRows; ++r) {
          const T precision = noise_.precision(i + r);
          for (int c = 0; c < kColumns; ++c) {
            spread_lanes_[i + r] += acc[r][c] * acc[r][c];
            store(&scaled_[(i + r) * row_ + k + c * kWidth], precision * acc[r][c]);
          }
        }
        ahead_.advance(kAhead);
      });
    });
    for (int64_t i = 0; i < d_; i += kWidth) {
      V rows[kWidth];
      for (int r = 0; r < kWidth; ++r) rows[r] = spread_lanes_[i + r];
      store(&spread_[i], sum_rows<T>(rows));
    }
  }

  template <int kRows, int kColumns>
  CVF_INLINE void load_tile(const Scratch<T>& matrix, int64_t i, int64_t k, V (&acc)[kRows][kColumns]) const {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c) acc[r][c] = load_at(matrix, i + r, k + c * kWidth);
    }
  }

  T value() const {
    double mahalanobis = 0;
    for (int64_t i = 0; i < d_; ++i) {
      const double spread = static_cast<double>(spread_[i] + residual_[i] * residual_[i]);
      mahalanobis += static_cast<double>(noise_.precision(i)) * spread;
    }
    LogProduct<T> product;
    for (int64_t i = 0; i < d_; i += kWidth) {
      V diagonal = V{} + T(1);
      for (int64_t lane = 0; lane < kWidth && i + lane < d_; ++lane) {
        diagonal[lane] = factor_[(i + lane) * (row_ + 1)];
      }
      product.multiply(diagonal);
    }
    return kl_value(noise_, d_, mahalanobis, product.log());
  }

  // dL = g (W^T D^-1 M - diag(1 / L_ii))
  void scale_tril_gradient(T upstream, const Output& out) {
    for_tiles<kTileColumns>(0, panels_, [&](auto columns, int64_t panel) {
      constexpr int kColumns = columns;
      const int64_t k = panel * kWidth;
      const Right<T> right{vectors(scaled_, 0) + panel, row_ / kWidth, 1};
      for_tiles<kTileRows>(k, d_, [&](auto rows, int64_t j) {
        constexpr int kRows = rows;
        V acc[kRows][kColumns];
        load_tile(scaled_, j, k, acc);
        multiply_tile<-1, T>(acc, Left<T>{&jac_[j], 1, row_}, right, j + 1, d_);
        for (int r = 0; r < kRows; ++r) {
          const int64_t diagonal = j + r - k;
          for (int c = 0; c < kColumns; ++c) {
            if (diagonal / kWidth == c) acc[r][c][diagonal % kWidth] -= T(1) / factor_[(j + r) * (row_ + 1)];
          }
          write_row(out, acc[r], upstream, j + r, k, j + r + 1);
        }
        ahead_.advance(kAhead);
      });
    });
  }

  // scale * acc at columns k and following of row i of an output, zero from column `length` on. The panel that holds
  // the diagonal also writes the zeros behind it.
  template <int kColumns>
  CVF_INLINE void write_row(const Output& out, const V (&acc)[kColumns], T scale, int64_t i, int64_t k,
                            int64_t length) {
    const int64_t end = k + kColumns * kWidth;
    T* row = (out.layout.packed ? packed_.data() : out.data) + out.layout.row(i);
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = k + c * kWidth;
      const V kept = keep_first<T>(scale * acc[c], length - column);
      if (out.layout.packed && column + kWidth <= i + 1) {
        store(row + column, kept);
      } else if (out.layout.packed) {
        store_partial<T>(row + column, kept, i + 1 - column);
      } else if (column < d_) {
        out.writer->write(row, column, kept);
      }
    }
    if (length <= end && !out.layout.packed) out.writer->write_zeros(row, end);
  }

  // L^T, zero below the diagonal.
  void transpose_factor() {
    for (int64_t j = 0; j < d_; j += kWidth) {
      for (int64_t k = 0; k <= j; k += kWidth) {
        V block[kWidth];
        for (int r = 0; r < kWidth; ++r) block[r] = j + r < d_ ? load_at(factor_, j + r, k) : V{};
        transpose<T>(block);
        for (int r = 0; r < kWidth; ++r) store(&transposed_[(k + r) * row_ + j], block[r]);
      }
    }
    const int64_t end = round_up(d_, kWidth);
    for (int64_t k = kWidth; k < end; ++k) {
      std::memset(&transposed_[k * row_], 0, static_cast<size_t>(k / kWidth * kWidth) * sizeof(T));
    }
  }

  // dA = -g (D^-1 M L^T + D^-1 r loc^T) below the diagonal; residual_ holds g D^-1 r.
  void jac_gradient(T upstream, const Output& out, T* jac_sum) {
    for_tiles<kTileColumns>(0, panels_, [&](auto columns, int64_t panel) {
      constexpr int kColumns = columns;
      const int64_t j = panel * kWidth;
      const int64_t end = std::min(j + kColumns * kWidth, d_);
      const Right<T> right{vectors(transposed_, 0) + panel, row_ / kWidth, 1};
      for_tiles<kTileRows>(j, d_, [&](auto rows, int64_t i) {
        constexpr int kRows = rows;
        V acc[kRows][kColumns] = {};
        multiply_tile<1, T>(acc, Left<T>{&scaled_[i * row_], row_, 1}, right, 0, end);
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) {
            acc[r][c] = upstream * acc[r][c] + residual_[i + r] * load(&loc_[j + c * kWidth]);
          }
          if (args_.shared_jac) {
            for (int c = 0; c < kColumns; ++c) {
              T* target = jac_sum + (i + r) * row_ + j + c * kWidth;
              store(target, load(target) - acc[r][c]);
            }
          } else {
            write_row(out, acc[r], T(-1), i + r, j, i + r);
          }
        }
        ahead_.advance(kAhead);
      });
    });
  }

  // dloc = g W^T D^-1 r; residual_ holds g D^-1 r.
  void loc_gradient(T* out) {
    for (int64_t j = 0; j < row_; ++j) grad_loc_[j] = j < d_ ? residual_[j] : T(0);
    for (int64_t i = 1; i < d_; ++i) {
      const V weight = broadcast(residual_[i]);
      for (int64_t j = 0; j < i; j += kWidth) {
        store(&grad_loc_[j], load(&grad_loc_[j]) - weight * load_at(jac_, i, j));
      }
    }
    std::memcpy(out, grad_loc_.data(), static_cast<size_t>(d_) * sizeof(T));
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const int64_t d_;
  const int64_t row_;     // elements between rows of the buffers
  const int64_t panels_;  // vectors that hold a row
  const RowWriter<T> jac_writer_, scale_tril_writer_;
  TrianglePrefetch<T> ahead_;
  Scratch<T> packed_;        // (d (d + 1) / 2,): a packed gradient as it is computed
  Scratch<T> jac_;           // (d, row): A, zero on and above the diagonal
  Scratch<T> factor_;        // (d, row): L, zero above the diagonal
  Scratch<T> transposed_;    // (row, row): L^T
  Scratch<T> scaled_;        // (d, row): D^-1 M
  Scratch<T> loc_;           // (row,), padded with zeros
  Scratch<T> residual_;      // (row,): r, then g D^-1 r
  Scratch<T> grad_loc_;      // (row,)
  Scratch<T> spread_;        // (row,): |M_i|^2
  Scratch<V> spread_lanes_;  // (row,): the same, not yet summed over lanes
};

}  // namespace cvf::sem_kl::CVF_ISA
