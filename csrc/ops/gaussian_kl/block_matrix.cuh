// Lower triangular matrices of one sample, on which a block works tile after tile: factorisation, solves, products.
//
// A matrix is in shared memory, or, if it is large, in global memory that the block has to itself. Nothing stands above
// the diagonal of a triangular one but zeros. Every function begins with a barrier and ends without one.
#pragma once

#include <cmath>
#include <limits>

#include "common/cuda/tile.cuh"

namespace cvf::gaussian_kl::cuda {

using namespace cvf::cuda;

inline constexpr int kThreads = kTile / kColumns * kTile;  // a warp for every kColumns columns of a tile
inline constexpr int kPanelPitch = kTile + 4;              // of a row of a panel, aligned for Columns
inline constexpr int64_t kStageElements = kTileElements + kTile * kPanelPitch;

template <class T>
struct Matrix {
  T* data;
  int64_t pitch, width;  // of a row: distance and length

  __device__ T& operator()(int64_t i, int64_t j) const { return data[i * pitch + j]; }
};

// What the block multiplies: a tile, and a panel of rows of Columns.
template <class T>
struct Stage {
  T* tile;
  T* panel;
};

__device__ inline int rows_of_tile(int64_t d, int64_t row) {
  return static_cast<int>(d - row < kTile ? d - row : kTile);
}

template <class Body>
__device__ void for_tile(Body body) {
  for (int k = static_cast<int>(threadIdx.x); k < kTile * kTile; k += static_cast<int>(blockDim.x)) {
    body(k / kTile, k % kTile);
  }
}

// tile[r, c] = X[row + r, column + c], zeros past the end.
template <class T>
__device__ void load(const Stage<T>& stage, const Matrix<T>& X, int64_t d, int64_t row, int64_t column) {
  for_tile([&](int r, int c) {
    const bool is_there = row + r < d && column + c < X.width;
    stage.tile[r * kPitch + c] = is_there ? X(row + r, column + c) : T(0);
  });
}

// panel[r, c] = X[row + r, column + c], or panel[c, r] if transposed.
template <bool kTransposed, class T>
__device__ void load_panel(const Stage<T>& stage, const Matrix<T>& X, int64_t d, int64_t row, int64_t column) {
  for_tile([&](int r, int c) {
    const bool is_there = row + r < d && column + c < X.width;
    stage.panel[kTransposed ? c * kPanelPitch + r : r * kPanelPitch + c] = is_there ? X(row + r, column + c) : T(0);
  });
}

// x := tile^-1 x, or tile^-T x, for a lower triangular tile.
template <bool kTransposed, class T>
__device__ void solve_tile(const T* tile, int rows, Columns<T>& x) {
  const T inverse = 1 / tile[lane() * kPitch + lane()];
  for (int step = 0; step < rows; ++step) {
    const int k = kTransposed ? rows - 1 - step : step;
    const bool later = kTransposed ? lane() < k : lane() > k;
    const T a = later ? (kTransposed ? tile[k * kPitch + lane()] : tile[lane() * kPitch + k]) : T(0);
    for (int c = 0; c < kColumns; ++c) x.at[c] = lane() == k ? x.at[c] * inverse : x.at[c];
    const Columns<T> known = columns_of(x, k);
    for (int c = 0; c < kColumns; ++c) {
      if (later) x.at[c] -= a * known.at[c];
    }
  }
}

// The last step for rows of a panel of X, from the products of L with the rows that are known: X := D^-1 (X - sum), or
// D^-T (X - sum), with the tile D of L on the diagonal.
template <bool kTransposed, class T>
__device__ void finish_panel(const Stage<T>& stage, const Matrix<T>& L, const Matrix<T>& X, int64_t d, int64_t row,
                             int64_t column, Columns<T>& sum) {
  __syncthreads();
  load(stage, L, d, row, row);
  load_panel<false>(stage, X, d, row, column);
  __syncthreads();
  for (int c = 0; c < kColumns; ++c) {
    sum.at[c] = stage.panel[lane() * kPanelPitch + warp() * kColumns + c] - sum.at[c];
  }
  solve_tile<kTransposed>(stage.tile, rows_of_tile(d, row), sum);
  for (int c = 0; c < kColumns; ++c) {
    const int64_t i = row + lane(), j = column + warp() * kColumns + c;
    if (i < d && j < X.width) X(i, j) = sum.at[c];
  }
}

// X := L^-1 X, panel after panel of its columns. `lower`: X is lower triangular.
template <class T>
__device__ void solve(const Stage<T>& stage, const Matrix<T>& L, const Matrix<T>& X, int64_t d, bool lower) {
  for (int64_t column = 0; column < X.width; column += kTile) {
    for (int64_t row = lower ? column : 0; row < d; row += kTile) {
      Columns<T> sum{};
      for (int64_t k = lower ? column : 0; k < row; k += kTile) {
        __syncthreads();
        load(stage, L, d, row, k);
        load_panel<false>(stage, X, d, k, column);
        __syncthreads();
        multiply<false>(stage.tile, stage.panel, kPanelPitch, sum);
      }
      finish_panel<false>(stage, L, X, d, row, column, sum);
    }
  }
}

// X := L^-T X. `lower`: only what is on and below the diagonal is wanted, and right.
template <class T>
__device__ void solve_transposed(const Stage<T>& stage, const Matrix<T>& L, const Matrix<T>& X, int64_t d, bool lower) {
  for (int64_t column = 0; column < X.width; column += kTile) {
    for (int64_t row = (d - 1) / kTile * kTile; row >= (lower ? column : 0); row -= kTile) {
      Columns<T> sum{};
      for (int64_t k = row + kTile; k < d; k += kTile) {
        __syncthreads();
        load(stage, L, d, k, row);
        load_panel<false>(stage, X, d, k, column);
        __syncthreads();
        multiply<true>(stage.tile, stage.panel, kPanelPitch, sum);
      }
      finish_panel<true>(stage, L, X, d, row, column, sum);
    }
  }
}

// The Cholesky factor of a tile with `rows` rows, in place; NaN from the first pivot on that is not positive.
template <class T>
__device__ void factorise_tile(T* tile, int rows) {
  for (int k = 0; k < rows; ++k) {
    __syncthreads();
    const T pivot = tile[k * kPitch + k];
    const T root = pivot > 0 ? std::sqrt(pivot) : std::numeric_limits<T>::quiet_NaN();
    __syncthreads();
    if (warp() == 0 && lane() >= k) {
      T& x = tile[lane() * kPitch + k];
      x = lane() == k ? root : x / root;
    }
    __syncthreads();
    for_tile([&](int r, int c) {
      if (c > k && c <= r) tile[r * kPitch + c] -= tile[r * kPitch + k] * tile[c * kPitch + k];
    });
  }
  __syncthreads();
}

// X := its Cholesky factor, from what is on and below the diagonal; tile column after tile column.
template <class T>
__device__ void factorise(const Stage<T>& stage, const Matrix<T>& X, int64_t d) {
  for (int64_t column = 0; column < d; column += kTile) {
    const int rows = rows_of_tile(d, column);
    for (int64_t row = column; row < d; row += kTile) {
      // Transposed: lanes are columns of the tile of X, the columns of a warp its rows.
      Columns<T> sum{};
      for (int64_t k = 0; k < column; k += kTile) {
        __syncthreads();
        load(stage, X, d, column, k);
        load_panel<true>(stage, X, d, row, k);
        __syncthreads();
        multiply<false>(stage.tile, stage.panel, kPanelPitch, sum);
      }
      __syncthreads();
      if (row > column) load(stage, X, d, column, column);  // its factor
      __syncthreads();
      const int64_t j = column + lane();
      for (int c = 0; c < kColumns; ++c) {
        const int64_t i = row + warp() * kColumns + c;
        sum.at[c] = i < d && j < d && j <= i ? X(i, j) - sum.at[c] : T(0);
      }
      if (row > column) {
        solve_tile<false>(stage.tile, rows, sum);
      } else {
        for (int c = 0; c < kColumns; ++c) stage.tile[(warp() * kColumns + c) * kPitch + lane()] = sum.at[c];
        factorise_tile(stage.tile, rows);
        for (int c = 0; c < kColumns; ++c) sum.at[c] = stage.tile[(warp() * kColumns + c) * kPitch + lane()];
      }
      for (int c = 0; c < kColumns; ++c) {
        const int64_t i = row + warp() * kColumns + c;
        if (i < d && j <= i) X(i, j) = sum.at[c];
      }
    }
  }
}

// Calls body(sum, row, column) for the tiles on and below the diagonal; `sum` is for rows row + warp() * kColumns + c,
// and column + lane().
template <class T, class Body>
__device__ void for_lower_tiles(int64_t d, Body body) {
  for (int64_t row = 0; row < d; row += kTile) {
    for (int64_t column = 0; column <= row; column += kTile) {
      Columns<T> sum{};
      body(sum, row, column);
    }
  }
}

// sum += (X Y^T) of a tile, from the first `end` columns.
template <class T>
__device__ void add_product(const Stage<T>& stage, const Matrix<T>& X, const Matrix<T>& Y, int64_t d, int64_t row,
                            int64_t column, int64_t end, Columns<T>& sum) {
  for (int64_t k = 0; k < end; k += kTile) {
    __syncthreads();
    load(stage, Y, d, column, k);
    load_panel<true>(stage, X, d, row, k);
    __syncthreads();
    multiply<false>(stage.tile, stage.panel, kPanelPitch, sum);
  }
}

// sum += (X^T X) of a tile, for a lower triangular X.
template <class T>
__device__ void add_square(const Stage<T>& stage, const Matrix<T>& X, int64_t d, int64_t row, int64_t column,
                           Columns<T>& sum) {
  for (int64_t k = row; k < d; k += kTile) {
    __syncthreads();
    load(stage, X, d, k, column);
    load_panel<false>(stage, X, d, k, row);
    __syncthreads();
    multiply<true>(stage.tile, stage.panel, kPanelPitch, sum);
  }
}

}  // namespace cvf::gaussian_kl::cuda
