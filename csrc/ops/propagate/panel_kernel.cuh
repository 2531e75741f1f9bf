// More than 32 nodes: a block for a panel of 32 columns of a sample's factor, tile of rows after tile of rows. Lanes
// are rows of a tile, a warp has kColumns columns. The mean goes with the first panel, which needs every tile of A.
#pragma once

#include <cmath>

#include "common/cuda/tile.cuh"
#include "ops/propagate/propagate.h"

namespace cvf::propagate::cuda {

using namespace cvf::cuda;

inline constexpr int kPanelThreads = kTile / kColumns * kTile;
inline constexpr int kPanelPitch = kTile + 4;  // of a row of a panel in shared memory, aligned for Columns
inline constexpr size_t kPanelElements = kTileElements + kTile * kPanelPitch + kTile;

// The rows `row`... of the panel at `column` of a matrix (d, d), zeros past its end.
template <class T>
__device__ void load_panel(T* panel, const T* matrix, int64_t d, int64_t row, int64_t column) {
  for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
    const int64_t i = row + k / kTile, j = column + k % kTile;
    panel[k / kTile * kPanelPitch + k % kTile] = i < d && j < d ? matrix[i * d + j] : T(0);
  }
}

// Rows `row`... of the panel at `column` of a matrix, on and below its diagonal, from what the warps have; zeros above.
template <class T>
__device__ void store_panel(T* matrix, T* panel, const Columns<T>& x, int64_t d, int64_t row, int64_t column) {
  __syncthreads();
  *reinterpret_cast<Columns<T>*>(panel + lane() * kPanelPitch + warp() * kColumns) = x;
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
    const int64_t i = row + k / kTile, j = column + k % kTile;
    if (i < d && j < d) matrix[i * d + j] = j <= i ? panel[k / kTile * kPanelPitch + k % kTile] : T(0);
  }
}

// Of a block: its sample, its panel, and its part of the shared memory.
template <class T>
struct PanelBlock {
  int64_t sample = blockIdx.x, column = static_cast<int64_t>(blockIdx.y) * kTile;
  T* tile = shared_memory<T>();
  T* panel = tile + kTileElements;
  T* vector = panel + kTile * kPanelPitch;
};

// `with_loc`: the first panel's block finds loc, too.
template <class T>
__global__ void __launch_bounds__(kPanelThreads) panel_forward(Forward<T> args, bool with_loc) {
  const PanelBlock<T> block;
  const int64_t d = args.d, column = block.column;
  const T* const jac = args.jac[block.sample];
  T* const factor = args.scale_tril + block.sample * d * d;
  T* const loc = args.loc + block.sample * d;
  const bool has_vector = with_loc && column == 0;
  for (int64_t k = threadIdx.x; k < column * kTile; k += blockDim.x) {  // above the first tile on the diagonal
    const int64_t j = column + k % kTile;
    if (j < d) factor[k / kTile * d + j] = 0;
  }
  for (int64_t row = column; row < d; row += kTile) {
    const int64_t i = row + lane();
    Columns<T> x{};
    T mean = 0;
    for (int64_t k = column; k < row; k += kTile) {
      __syncthreads();
      load_tile(block.tile, jac, d, row, k);
      load_panel(block.panel, factor, d, k, column);
      if (has_vector && warp() == 0) block.vector[lane()] = loc[k + lane()];
      __syncthreads();
      multiply<false>(block.tile, block.panel, kPanelPitch, x);
      if (has_vector && warp() == 0) {
        for (int j = 0; j < kTile; ++j) mean += block.tile[lane() * kPitch + j] * block.vector[j];
      }
    }
    __syncthreads();
    load_tile(block.tile, jac, d, row, row);
    __syncthreads();
    const int rows = static_cast<int>(d - row < kTile ? d - row : kTile);
    for (int c = 0; c < kColumns; ++c) {
      if (i < d && i == column + warp() * kColumns + c) x.at[c] = std::exp(args.log_sigma[i]);
    }
    substitute<false>(block.tile, rows, x);
    if (has_vector && warp() == 0) {
      if (i < d) mean += args.offset[block.sample][i];
      for (int k = 0; k < rows; ++k) {
        const T known = __shfl_sync(kAllLanes, mean, k);
        if (lane() > k) mean += block.tile[lane() * kPitch + k] * known;
      }
      if (i < d) loc[i] = mean;
    }
    store_panel(factor, block.panel, x, d, row, column);
  }
}

// Y = W^-T upstream_scale_tril, (B, d, d), on and below the diagonal, zeros above it in tiles on the diagonal. With
// `adjoint`, (B, d), the first panel's block finds W^-T upstream_loc, too; `log_sigma`, (B, d), takes the gradient of
// each sample, if it is not null.
template <class T>
__global__ void __launch_bounds__(kPanelThreads)
    panel_adjoint(Backward<T> args, T* solution, T* adjoint, T* log_sigma) {
  const PanelBlock<T> block;
  const int64_t d = args.d, column = block.column;
  const T* const jac = args.jac[block.sample];
  const T* const upstream = args.upstream_scale_tril[block.sample];
  T* const Y = solution + block.sample * d * d;
  T* const vector = adjoint != nullptr ? adjoint + block.sample * d : nullptr;
  const bool has_vector = vector != nullptr && column == 0;
  for (int64_t row = (d - 1) / kTile * kTile; row >= column; row -= kTile) {
    const int64_t i = row + lane();
    Columns<T> x{};
    T mean = 0;
    for (int64_t k = row + kTile; k < d; k += kTile) {
      __syncthreads();
      load_tile(block.tile, jac, d, k, row);
      load_panel(block.panel, Y, d, k, column);
      if (has_vector && warp() == 0) block.vector[lane()] = k + lane() < d ? vector[k + lane()] : T(0);
      __syncthreads();
      multiply<true>(block.tile, block.panel, kPanelPitch, x);
      if (has_vector && warp() == 0) {
        for (int j = 0; j < kTile; ++j) mean += block.tile[j * kPitch + lane()] * block.vector[j];
      }
    }
    __syncthreads();
    load_tile(block.tile, jac, d, row, row);
    load_tile(block.panel, upstream, d, row, column, true);
    __syncthreads();
    for (int c = 0; c < kColumns; ++c) x.at[c] += block.panel[lane() * kPitch + warp() * kColumns + c];
    const int rows = static_cast<int>(d - row < kTile ? d - row : kTile);
    substitute<true>(block.tile, rows, x);
    if (has_vector && warp() == 0) {
      if (i < d) mean += args.upstream_loc[block.sample][i];
      for (int k = rows - 1; k > 0; --k) {
        const T known = __shfl_sync(kAllLanes, mean, k);
        if (lane() < k) mean += block.tile[k * kPitch + lane()] * known;
      }
      if (i < d) vector[i] = mean;
    }
    for (int c = 0; c < kColumns; ++c) {
      if (log_sigma != nullptr && i < d && i == column + warp() * kColumns + c)
        log_sigma[block.sample * d + i] = x.at[c] * std::exp(args.log_sigma[i]);
    }
    store_panel(Y, block.panel, x, d, row, column);
  }
}

// grad_jac, which holds Y, becomes Y S^T + adjoint loc^T below the diagonal, zeros elsewhere. A block has a row of
// tiles, and goes along it from the right: a product takes what is to its left. Without `adjoint` only Y S^T.
template <class T>
__global__ void __launch_bounds__(kPanelThreads) panel_product(Backward<T> args, const T* adjoint) {
  const int64_t sample = blockIdx.x, row = static_cast<int64_t>(blockIdx.y) * kTile, d = args.d;
  T* const Y = args.grad_jac + sample * d * d;
  const T* const S = args.scale_tril[sample];
  T* const tile = shared_memory<T>();
  T* const panel = tile + kTileElements;  // of Y, transposed
  const int64_t right = d - row - kTile;  // columns right of the tile on the diagonal
  for (int64_t k = threadIdx.x; k < kTile * right; k += blockDim.x)
    Y[(row + k / right) * d + row + kTile + k % right] = 0;
  for (int64_t column = row; column >= 0; column -= kTile) {
    const int64_t j = column + lane();
    Columns<T> x{};  // of rows warp() * kColumns + c, column lane()
    for (int64_t k = 0; k <= column; k += kTile) {
      __syncthreads();
      load_tile(tile, S, d, column, k, true);
      for (int e = static_cast<int>(threadIdx.x); e < kTile * kTile; e += static_cast<int>(blockDim.x)) {
        const int64_t i = row + e / kTile, from = k + e % kTile;
        panel[e % kTile * kPanelPitch + e / kTile] = i < d && from < d ? Y[i * d + from] : T(0);
      }
      __syncthreads();
      multiply<false>(tile, panel, kPanelPitch, x);
    }
    __syncthreads();
    for (int c = 0; c < kColumns; ++c) {
      const int64_t i = row + warp() * kColumns + c;
      if (i >= d || j >= d) continue;
      if (adjoint != nullptr && j < i) x.at[c] += adjoint[sample * d + i] * args.loc[sample][j];
      Y[i * d + j] = j < i ? x.at[c] : T(0);
    }
  }
}

}  // namespace cvf::propagate::cuda
