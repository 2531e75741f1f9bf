// sem_kl for a diagonal posterior and a jac of its own for each sample, large d: one pass over the rows of A.
//
// The work is O(d^2) per sample, as much as the traffic. A block of as many rows as a vector has lanes is read from
// memory for their residuals, one in each lane, and a second time, from the first level of the cache, for the
// gradients, which need the residuals. The second reading goes down one cache line's columns at a time, so that the
// sums over rows stay in registers and the gradient of A leaves in whole lines.
#pragma once

#include <algorithm>
#include <cstring>

#include "common/output.h"
#include "common/tile.h"
#include "ops/sem_kl/terms.h"

namespace cvf::sem_kl::CVF_ISA {

template <class T, bool kPacked>  // kPacked: how A and its gradient are laid out
class RowKernel {
  using V = Vec<T>;
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kLineVectors = kCacheLine / kVectorBytes;
  static constexpr int kLine = kLineVectors * kWidth;
  // Rows of different length defeat the hardware's prefetcher, unless they are long.
  static constexpr int64_t kPrefetchedBytes = 256 << 10;
  static constexpr int kSummedRows = std::min(4, kWidth);
  static constexpr int kTileLines = kManyRegisters ? 4 : 1;

 public:
  RowKernel(const Arguments<T>& args, const Noise<T>& noise)
      : args_(args),
        noise_(noise),
        d_(args.d),
        padded_(round_up(args.d, kLine)),
        jac_end_(args.jac.end(args.batch, args.jac_layout().size())),
        jac_writer_(args.grad_jac, args.batch * args.d, args.d),
        loc_(padded_),
        offset_(padded_),
        variance_(padded_),
        scale_(padded_),
        grad_loc_(padded_),
        column_norm_(padded_),
        packed_streamed_(kPacked && args.grad_jac &&
                         worth_streaming(args.batch * args.jac_layout().size() * static_cast<int64_t>(sizeof(T)))),
        packed_(kPacked && args.grad_jac ? kWidth * args.d : 0) {
    for (int64_t j = 0; j < padded_; ++j) {
      loc_[j] = offset_[j] = variance_[j] = T(0);
      scale_[j] = T(1);
    }
  }

  // One sample, with the (d,) sums of the gradients that the batch shares.
  void run(int64_t sample, double* offset_sum, double* log_sigma_sum) {
    load_sample(sample);
    const bool gradient = args_.wants_gradient();
    const int64_t ahead = distance_ahead(sample);
    V mahalanobis{};
    for (int64_t block = 0; block < d_; block += kWidth) {
      const TriangleRows jac = jac_rows(sample, block);
      const auto [product, spread_of_parents] = sum_block(jac, block, gradient ? 0 : ahead);
      const V residual = load(&loc_[block]) - product - load(&offset_[block]);
      const V spread = load(&variance_[block]) + spread_of_parents + residual * residual;
      const V precision = noise_.precisions(block);
      mahalanobis += precision * spread;
      if (gradient) {
        node_gradients(sample, block, precision * residual, precision * spread, offset_sum, log_sigma_sum);
        edge_gradients(jac, sample, block, ahead, precision, precision * residual);
      }
    }
    if (args_.value) {
      args_.value[sample] = kl_value(noise_, d_, static_cast<double>(sum_lanes<T>(mahalanobis)), log_det());
    }
    if (args_.grad_loc) write_loc_gradient(args_.grad_loc + sample * d_);
    if (args_.grad_scale) write_scale_gradient(args_.grad_scale + sample * d_);
  }

  // To be called after the last sample.
  void finish() const {
    jac_writer_.finish();
    if (packed_streamed_) finish_streaming();
  }

 private:
  struct BlockSums {
    V product;  // sum_j A_ij loc_j
    V spread;   // sum_j A_ij^2 s_j^2
  };

  void load_sample(int64_t sample) {
    const size_t bytes = static_cast<size_t>(d_) * sizeof(T);
    std::memcpy(loc_.data(), args_.loc[sample], bytes);
    std::memcpy(offset_.data(), args_.offset[sample], bytes);
    std::memcpy(scale_.data(), args_.scale[sample], bytes);
    for (int64_t j = 0; j < padded_; j += kWidth) {
      store(&variance_[j], keep_first<T>(load(&scale_[j]) * load(&scale_[j]), d_ - j));
    }
    if (!args_.wants_gradient()) return;
    upstream_ = *args_.upstream[sample];
    for (int64_t j = 0; j < padded_; j += kWidth) {
      store(&column_norm_[j], noise_.precisions(j));
      store(&grad_loc_[j], V{});
    }
  }

  // The rows of a block of a triangle.
  struct TriangleRows {
    const T* data;
    int64_t row;  // elements from the first row to the second, and one more from each to the next if it is packed

    CVF_INLINE const T* operator[](int64_t r) const { return data + offset(r); }
    CVF_INLINE int64_t offset(int64_t r) const { return kPacked ? r * row + r * (r - 1) / 2 : r * row; }
  };

  TriangleRows jac_rows(int64_t sample, int64_t block) const {
    const TriangleLayout layout = args_.jac_layout();
    const T* data = args_.jac[sample] + layout.row(block);
    return {data, kPacked ? block + 1 : d_};
  }

  // Lane r belongs to row block + r; lanes behind the last row get zero. Asks for what lies `ahead` of each element.
  CVF_INLINE BlockSums sum_block(TriangleRows jac, int64_t block, int64_t ahead) const {
    V products[kWidth], spreads[kWidth];
    const int64_t rows = rows_in(block);
    for_tiles<kSummedRows>(0, rows, [&](auto count, int64_t first) {
      constexpr int kRows = count;
      const T* part[kRows];
      for (int r = 0; r < kRows; ++r) part[r] = jac[first + r];
      V product[kRows] = {}, spread[kRows] = {};
      for (int64_t j = 0; j < block; j += kWidth) {
        const V loc = load(&loc_[j]), variance = load(&variance_[j]);
        for (int r = 0; r < kRows; ++r) {
          const V a = load(part[r] + j);
          __builtin_prefetch(part[r] + j + ahead, 0, 2);
          product[r] += a * loc;
          spread[r] += a * a * variance;
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const V a = load_first(part[r] + block, first + r, jac_end_);
        __builtin_prefetch(part[r] + block + ahead, 0, 2);
        products[first + r] = product[r] + a * load(&loc_[block]);
        spreads[first + r] = spread[r] + a * a * load(&variance_[block]);
      }
    });
    for (int64_t r = rows; r < kWidth; ++r) products[r] = spreads[r] = V{};
    return {sum_rows<T>(products), sum_rows<T>(spreads)};
  }

  // From an element of A to the same one of the sample that is asked for meanwhile: the next one, or none.
  int64_t distance_ahead(int64_t sample) const {
    const bool asked = sample + 1 < args_.batch && d_ * d_ * static_cast<int64_t>(sizeof(T)) <= kPrefetchedBytes;
    return asked ? args_.jac.stride : 0;
  }

  int64_t rows_in(int64_t block) const { return std::min<int64_t>(kWidth, d_ - block); }

  // The gradients of what belongs to the nodes of a block: `weighted` is D^-1 r, `scaled_spread` is
  // (|M_i|^2 + r_i^2) / sigma_i^2.
  CVF_INLINE void node_gradients(int64_t sample, int64_t block, V weighted, V scaled_spread, double* offset_sum,
                                 double* log_sigma_sum) {
    store(&grad_loc_[block], load(&grad_loc_[block]) + weighted);
    const V offset = -upstream_ * weighted;
    const V log_sigma = upstream_ * (T(1) - scaled_spread);
    const int64_t rows = rows_in(block);
    for (int64_t r = 0; r < rows; ++r) {
      offset_sum[block + r] += static_cast<double>(offset[r]);
      log_sigma_sum[block + r] += static_cast<double>(log_sigma[r]);
    }
    if (args_.grad_offset && !args_.shared_offset) {
      store_partial<T>(args_.grad_offset + sample * d_ + block, offset, rows);
    }
  }

  // What the rows of a block add to W^T D^-1 r and to the column norms, and their gradient.
  CVF_INLINE void edge_gradients(TriangleRows jac, int64_t sample, int64_t block, int64_t ahead, V precision,
                                 V weighted) {
    Block rows{.jac = jac, .first = block, .ahead = ahead};
    store(rows.precision, precision);
    store(rows.weighted, weighted);
    if (!args_.grad_jac) return edge_gradients<Output::kNone>(rows);
    const TriangleLayout layout = args_.jac_layout();
    rows.out = args_.grad_jac + sample * layout.size() + layout.row(block);
    if constexpr (kPacked) {  // in the cache, and out in one piece: half of the stores would cross a line
      T* out = rows.out;
      rows.out = packed_.data();
      edge_gradients<Output::kPackedRows>(rows);
      copy_out(packed_.data(), jac.offset(rows_in(block)), packed_streamed_, out);
    } else if (jac_writer_.streamed()) {
      edge_gradients<Output::kStreamed>(rows);
    } else {
      edge_gradients<Output::kStored>(rows);
    }
  }

  enum class Output { kNone, kStored, kStreamed, kPackedRows };

  struct Block {
    TriangleRows jac;          // its rows of A
    T* out = nullptr;          // and of the gradient, laid out as they are
    int64_t first;             // its first row
    int64_t ahead;             // from an element of A to the one to be asked for
    T precision[kWidth] = {};  // 1 / sigma_i^2
    T weighted[kWidth] = {};   // (D^-1 r)_i
  };

  template <Output kOutput>
  CVF_INLINE void edge_gradients(const Block& block) {
    if (block.first + kWidth <= d_) {
      edge_gradients<kOutput>(block, Constant<kWidth>{});
    } else {
      edge_gradients<kOutput>(block, d_ - block.first);
    }
  }

  template <Output kOutput, class Rows>
  CVF_INLINE void edge_gradients(const Block& block, Rows rows) {
    const int64_t lines = block.first / kLine;
    for_tiles<kTileLines>(0, lines, [&](auto count, int64_t line) {
      tile_gradients<kOutput, count * kLineVectors, false>(block, line * kLine, rows);
    });
    tile_gradients<kOutput, kLineVectors, true>(block, lines * kLine, rows);
    if constexpr (kOutput == Output::kStored || kOutput == Output::kStreamed) {
      for (int64_t r = 0; r < rows; ++r) write_zeros<kOutput>(block.out + r * d_, (lines + 1) * kLine);
    }
  }

  // The same for a few vectors of columns.
  //   dA_ij = g / sigma_i^2 (A_ij s_j^2 - r_i loc_j), below the diagonal
  template <Output kOutput, int kVectors, bool kDiagonal, class Rows>
  CVF_INLINE void tile_gradients(const Block& block, int64_t column, Rows rows) {
    V norm[kVectors], grad_loc[kVectors], variance[kVectors], loc[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int64_t j = column + v * kWidth;
      norm[v] = load(&column_norm_[j]);
      grad_loc[v] = load(&grad_loc_[j]);
      variance[v] = upstream_ * load(&variance_[j]);
      loc[v] = upstream_ * load(&loc_[j]);
    }
    const TriangleRows jac = block.jac;  // which the compiler would read again after each store
    T* out = block.out;
    // Of a vector's columns, those before the block's first row.
    const int64_t lead = kLine == kWidth ? 0 : block.first - column;
    for (int64_t r = 0; r < rows; ++r) {
      const V precision = broadcast(block.precision[r]), weighted = broadcast(block.weighted[r]);
      for (int v = 0; v < kVectors; ++v) {
        const int64_t j = column + v * kWidth;
        const int64_t below = lead + r - v * kWidth;  // elements below the diagonal
        const T* part = jac[r] + j;
        const V a = kDiagonal ? load_first(part, below, jac_end_) : load(part);
        __builtin_prefetch(part + block.ahead, 0, 2);
        const V scaled = precision * a;
        norm[v] += scaled * a;
        grad_loc[v] -= weighted * a;
        if constexpr (kOutput != Output::kNone) {
          V gradient = scaled * variance[v] - weighted * loc[v];
          if (kDiagonal) gradient = keep_first<T>(gradient, below);
          T* row = out + jac.offset(r);
          if constexpr (kDiagonal && kOutput == Output::kPackedRows) {
            store_partial<T>(row + j, gradient, below + 1);
          } else if constexpr (kDiagonal) {
            write<kOutput>(row, j, gradient);
          } else if constexpr (kOutput == Output::kStreamed) {
            stream(row + j, gradient);
          } else {
            store(row + j, gradient);
          }
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      const int64_t j = column + v * kWidth;
      store(&column_norm_[j], norm[v]);
      store(&grad_loc_[j], grad_loc[v]);
    }
  }

  // Elements j and following of a row of the gradient, as far as it goes.
  template <Output kOutput>
  CVF_INLINE void write(T* row, int64_t j, V v) const {
    if constexpr (kOutput == Output::kStreamed) {
      if (j < d_) stream(row + j, v);
    } else if (j + kWidth <= d_) {
      store(row + j, v);
    } else {
      store_partial<T>(row + j, v, d_ - j);
    }
  }

  template <Output kOutput>
  CVF_INLINE void write_zeros(T* row, int64_t j) const {
    for (; j < d_; j += kWidth) write<kOutput>(row, j, V{});
  }

  void write_loc_gradient(T* out) const {
    for (int64_t j = 0; j < d_; j += kWidth) store_partial<T>(out + j, upstream_ * load(&grad_loc_[j]), d_ - j);
  }

  void write_scale_gradient(T* out) const {
    for (int64_t j = 0; j < d_; j += kWidth) {
      const V scale = load(&scale_[j]);
      store_partial<T>(out + j, upstream_ * (scale * load(&column_norm_[j]) - T(1) / scale), d_ - j);
    }
  }

  double log_det() const {
    LogProduct<T> product;
    for (int64_t j = 0; j < padded_; j += kWidth) product.multiply(load(&scale_[j]));
    return product.log();
  }

  const Arguments<T>& args_;
  const Noise<T>& noise_;
  const int64_t d_;
  const int64_t padded_;
  const T* jac_end_;  // a load may not pass it
  const RowWriter<T> jac_writer_;
  T upstream_{};
  Scratch<T> loc_, offset_, variance_;  // (padded,) each, of the sample in hand; zero behind d
  Scratch<T> scale_;                    // (padded,), one behind d
  Scratch<T> grad_loc_;                 // (padded,): W^T D^-1 r
  Scratch<T> column_norm_;              // (padded,): sum_i W_ij^2 / sigma_i^2
  const bool packed_streamed_;          // whether the gradient of A is packed, and written past the cache
  Scratch<T> packed_;                   // rows of a block of a packed gradient, as they are computed
};

}  // namespace cvf::sem_kl::CVF_ISA
