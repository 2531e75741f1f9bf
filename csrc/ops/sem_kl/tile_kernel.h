// sem_kl for a full posterior and large d: one sample at a time, its triangular products in register tiles.
//
// The lower triangles are copied into panels with zeros above the diagonal, so that tiles on the diagonal need no
// masks; tiles above it are never visited. Gradients come row by row, each in whole cache lines.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/output.h"
#include "common/tile.h"
#include "ops/sem_kl/panels.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

template <class T>
class TileKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kPanel = kPanelWidth<T>;
  // A tile is as wide as a panel, in vectors. As many accumulators as hide the latency of a multiply-add, and the
  // operands, have to fit in the registers.
  static constexpr int kColumns = kPanel / kWidth;
  static constexpr int kTileRows = 8 / kColumns;
  static_assert(kPanel % kTileRows == 0);

 public:
  // Elements between the rows of the buffer for the gradient of a shared jac.
  static int64_t padded_row(int64_t d) { return round_up(d, kPanel); }

  TileKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        d_(args.d),
        row_(padded_row(args.d)),
        jac_writer_(args.grad_jac, args.batch * args.d, args.d),
        scale_tril_writer_(args.grad_scale_tril, args.batch * args.d, args.d),
        packed_(args.packed_jac || args.packed_scale_tril ? args.d * (args.d + 1) / 2 : 0),
        jac_(d_),
        factor_(d_),
        scaled_(d_),
        transposed_(row_ * (row_ + kPanel) / 2),
        loc_(row_),
        residual_(row_),
        spread_(row_),
        inverse_diagonal_(d_) {
    if (args.shared_jac) copy_triangle(args.jac, args.jac_layout(), 0, 0, jac_);
    for (int64_t i = 0; i < row_; ++i) loc_[i] = residual_[i] = spread_[i] = T(0);
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
      residual_[i] *= noise_.precision(i);
    }
    if (args_.grad_jac) {
      transpose_factor();
      const Output out = output(args_.grad_jac, args_.jac_layout(), args_.shared_jac ? 0 : sample, &jac_writer_);
      jac_gradient(upstream, out, jac_sum);
      if (!args_.shared_jac) finish(out);
    }
    for (int64_t i = 0; i < d_; ++i) residual_[i] *= upstream;
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
  // and goes there in one piece, since half of its stores would cross a line.
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
                     LowerPanels<T>& out) const {
    const T* matrix = matrices[sample];
    const T* end = matrices.end(args_.batch, layout.size());
    for (int64_t i = 0; i < d_; ++i) {
      const int64_t length = i + diagonal;
      const T* source = matrix + layout.row(i);
      const int64_t last = i / kPanel;
      for (int64_t p = 0; p < last; ++p) {
        T* target = out.line(i, p);
        for (int c = 0; c < kColumns; ++c) store(target + c * kWidth, load(source + p * kPanel + c * kWidth));
      }
      T* target = out.line(i, last);
      for (int c = 0; c < kColumns; ++c) {
        const int64_t j = last * kPanel + c * kWidth;
        store(target + c * kWidth, load_first(source + j, length - j, end));
      }
    }
  }

  void load_sample(int64_t sample) {
    if (!args_.shared_jac) copy_triangle(args_.jac, args_.jac_layout(), sample, 0, jac_);
    copy_triangle(args_.scale_tril, args_.scale_tril_layout(), sample, 1, factor_);
    std::memcpy(loc_.data(), args_.loc[sample], static_cast<size_t>(d_) * sizeof(T));
    for (int64_t i = 0; i < d_; ++i) inverse_diagonal_[i] = T(1) / diagonal(i);
    const bool last = sample + 1 == args_.batch;
    next_jac_ = last || args_.shared_jac ? nullptr : args_.jac[sample + 1];
    next_factor_ = last ? nullptr : args_.scale_tril[sample + 1];
  }

  // r = W loc - b
  void residual(int64_t sample) {
    const T* offset = args_.offset[sample];
    for (int64_t i = 0; i < d_; i += kWidth) {
      V rows[kWidth] = {};
      for (int64_t p = 0; p * kPanel <= i; ++p) {
        for (int64_t r = 0; r < kWidth && i + r < d_; ++r) {
          const T* a = jac_.line(i + r, p);
          for (int c = 0; c < kColumns; ++c) rows[r] += load(a + c * kWidth) * load(&loc_[p * kPanel + c * kWidth]);
        }
      }
      store(&residual_[i], load(&loc_[i]) - sum_rows<T>(rows));
    }
    for (int64_t i = 0; i < d_; ++i) residual_[i] -= offset[i];
  }

  // A panel as the right operand of a product.
  static Right<T> right(const T* panel) { return {reinterpret_cast<const V*>(panel), kColumns, 1}; }

  // acc += sign * sum over t in [begin, end) of x(i + r, t) y(t), where y(t) is row t of a panel; begin is the first
  // column of one.
  template <int kSign, int kRows>
  CVF_INLINE static void multiply_rows(V (&acc)[kRows][kColumns], const LowerPanels<T>& x, int64_t i, const T* y,
                                       int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t += kPanel) {
      const Left<T> left{x.line(i, t / kPanel), kPanel, 1};
      multiply_tile<kSign, T>(acc, left, right(y + t * kPanel), 0, std::min<int64_t>(kPanel, end - t));
    }
  }

  // Asks for the lines of rows [i, i + rows) that begin panel p of a matrix of the next sample. All of them at once
  // would have to wait for each other, and the work for them.
  CVF_INLINE static void ask_for(const T* matrix, const TriangleLayout& layout, int64_t i, int64_t p, int rows) {
    if (!matrix) return;
    for (int r = 0; r < rows; ++r) __builtin_prefetch(matrix + layout.row(i + r) + p * kPanel, 0, 2);
  }

  // M = W L, kept as D^-1 M, and |M_i|^2.
  void multiply_by_w() {
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      constexpr int kRows = rows;
      V spread[kRows] = {};
      for (int64_t p = 0; p * kPanel < i + kRows; ++p) {
        V acc[kRows][kColumns];
        load_tile(factor_.line(i, p), acc);
        multiply_rows<-1>(acc, jac_, i, factor_.panel(p), p * kPanel, i + kRows - 1);
        T* out = scaled_.line(i, p);
        for (int r = 0; r < kRows; ++r) {
          const T precision = noise_.precision(i + r);
          for (int c = 0; c < kColumns; ++c) {
            spread[r] += acc[r][c] * acc[r][c];
            store(out + r * kPanel + c * kWidth, precision * acc[r][c]);
          }
        }
        if (!args_.wants_gradient()) {
          ask_for(next_jac_, args_.jac_layout(), i, p, kRows);
          ask_for(next_factor_, args_.scale_tril_layout(), i, p, kRows);
        }
      }
      for (int r = 0; r < kRows; ++r) spread_[i + r] = sum_lanes<T>(spread[r]);
    });
  }

  template <int kRows>
  CVF_INLINE static void load_tile(const T* from, V (&acc)[kRows][kColumns]) {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c) acc[r][c] = load(from + r * kPanel + c * kWidth);
    }
  }

  T diagonal(int64_t i) const { return factor_.line(i, i / kPanel)[i % kPanel]; }

  T value() const {
    double mahalanobis = 0;
    for (int64_t i = 0; i < d_; ++i) {
      const double spread = static_cast<double>(spread_[i] + residual_[i] * residual_[i]);
      mahalanobis += static_cast<double>(noise_.precision(i)) * spread;
    }
    LogProduct<T> product;
    for (int64_t i = 0; i < d_; i += kWidth) {
      V diagonals = V{} + T(1);
      for (int64_t lane = 0; lane < kWidth && i + lane < d_; ++lane) diagonals[lane] = diagonal(i + lane);
      product.multiply(diagonals);
    }
    return kl_value(noise_, d_, mahalanobis, product.log());
  }

  // dL = g (W^T D^-1 M - diag(1 / L_ii))
  void scale_tril_gradient(T upstream, const Output& out) {
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t j) {
      constexpr int kRows = rows;
      const T* columns = jac_.panel(j / kPanel) + j % kPanel;  // of A
      for (int64_t p = 0; p * kPanel < j + kRows; ++p) {
        V acc[kRows][kColumns];
        load_tile(scaled_.line(j, p), acc);
        multiply_tile<-1, T>(acc, Left<T>{columns, 1, kPanel}, right(scaled_.panel(p)), j + 1, d_);
        if (p * kPanel + kPanel <= j) {
          write_inside(out, acc, upstream, j, p);
        } else {
          for (int r = 0; r < kRows; ++r) {
            const int64_t k = j + r - p * kPanel;
            for (int c = 0; c < kColumns; ++c) {
              if (k / kWidth == c) acc[r][c][k % kWidth] -= inverse_diagonal_[j + r];
            }
            write_row(out, acc[r], upstream, j + r, p * kPanel, j + r + 1);
          }
        }
        ask_for(next_factor_, args_.scale_tril_layout(), j, p, kRows);
      }
    });
  }

  // scale * acc at rows i and following and panel p of an output, all below the diagonal.
  template <int kRows>
  CVF_INLINE void write_inside(const Output& out, const V (&acc)[kRows][kColumns], T scale, int64_t i, int64_t p) {
    T* rows = (out.layout.packed ? packed_.data() : out.data) + p * kPanel;
    for (int r = 0; r < kRows; ++r) {
      T* row = rows + out.layout.row(i + r);
      for (int c = 0; c < kColumns; ++c) {
        if (!out.layout.packed && out.writer->streamed()) {
          stream(row + c * kWidth, scale * acc[r][c]);
        } else {
          store(row + c * kWidth, scale * acc[r][c]);
        }
      }
    }
  }

  // scale * acc at columns k and following of row i of an output, zero from column `length` on. The panel that holds
  // the diagonal also writes the zeros behind it.
  CVF_INLINE void write_row(const Output& out, const V (&acc)[kColumns], T scale, int64_t i, int64_t k,
                            int64_t length) {
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
    if (i < k + kPanel && !out.layout.packed) out.writer->write_zeros(row, k + kPanel);
  }

  // L^T: panel p holds columns [p w, (p + 1) w) of the rows up to (p + 1) w.
  T* transposed(int64_t p) { return &transposed_[kPanel * kPanel * (p * (p + 1) / 2)]; }

  void transpose_factor() {
    for (int64_t p = 0; p * kPanel < d_; ++p) {
      for (int64_t q = 0; q <= p; ++q) {
        T* out = transposed(p) + q * kPanel * kPanel;
        for (int c = 0; c < kColumns; ++c) {
          for (int b = 0; b < kColumns; ++b) {
            const int64_t j = p * kPanel + b * kWidth;
            V block[kWidth];
            for (int r = 0; r < kWidth; ++r) block[r] = j + r < d_ ? load(factor_.line(j + r, q) + c * kWidth) : V{};
            transpose<T>(block);
            for (int r = 0; r < kWidth; ++r) store(out + (c * kWidth + r) * kPanel + b * kWidth, block[r]);
          }
        }
      }
    }
  }

  // dA = -g (D^-1 M L^T + D^-1 r loc^T) below the diagonal; residual_ holds D^-1 r.
  void jac_gradient(T upstream, const Output& out, T* jac_sum) {
    for_tiles<kTileRows>(0, d_, [&](auto rows, int64_t i) {
      constexpr int kRows = rows;
      for (int64_t p = 0; p * kPanel < i + kRows; ++p) {
        V acc[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
          for (int c = 0; c < kColumns; ++c) acc[r][c] = residual_[i + r] * load(&loc_[p * kPanel + c * kWidth]);
        }
        multiply_rows<1>(acc, scaled_, i, transposed(p), 0, std::min((p + 1) * kPanel, i + kRows));
        if (args_.shared_jac) {
          for (int r = 0; r < kRows; ++r) {
            for (int c = 0; c < kColumns; ++c) {
              T* target = jac_sum + (i + r) * row_ + p * kPanel + c * kWidth;
              store(target, load(target) - upstream * acc[r][c]);
            }
          }
        } else if (p * kPanel + kPanel <= i) {
          write_inside(out, acc, -upstream, i, p);
        } else {
          for (int r = 0; r < kRows; ++r) write_row(out, acc[r], -upstream, i + r, p * kPanel, i + r);
        }
        ask_for(next_jac_, args_.jac_layout(), i, p, kRows);
      }
    });
  }

  // dloc = g W^T D^-1 r; residual_ holds g D^-1 r.
  void loc_gradient(T* out) {
    for (int64_t p = 0; p * kPanel < d_; ++p) {
      V acc[1][kColumns];
      for (int c = 0; c < kColumns; ++c) acc[0][c] = load(&residual_[p * kPanel + c * kWidth]);
      multiply_tile<-1, T>(acc, Left<T>{residual_.data(), 0, 1}, right(jac_.panel(p)), p * kPanel, d_);
      for (int c = 0; c < kColumns; ++c) {
        const int64_t j = p * kPanel + c * kWidth;
        if (j < d_) store_partial<T>(out + j, acc[0][c], d_ - j);
      }
    }
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const int64_t d_;
  const int64_t row_;  // d, rounded up to whole panels
  const RowWriter<T> jac_writer_, scale_tril_writer_;
  const T* next_jac_ = nullptr;  // of the next sample
  const T* next_factor_ = nullptr;
  Scratch<T> packed_;            // (d (d + 1) / 2,): a packed gradient as it is computed
  LowerPanels<T> jac_;           // A, zero on and above the diagonal
  LowerPanels<T> factor_;        // L, zero above the diagonal
  LowerPanels<T> scaled_;        // D^-1 M, zero above the diagonal
  Scratch<T> transposed_;        // L^T, see `transposed`
  Scratch<T> loc_;               // (row,), padded with zeros
  Scratch<T> residual_;          // (row,): r, then g D^-1 r, padded with zeros
  Scratch<T> spread_;            // (row,): |M_i|^2
  Scratch<T> inverse_diagonal_;  // (d,): 1 / L_ii
};

}  // namespace cvf::sem_kl::CVF_ISA
