// The three matrix products of masked-MLP mechanisms, for one node: the pre-activations of its hidden units, what they
// pass back to their inputs, and the gradient of their weights. Samples stand across lanes, two groups at a time, so
// that each number that is loaded serves two vectors.
#pragma once

#include "common/lane_blocks.h"

namespace cvf::ancestral_sample::mlp::CVF_ISA {

using namespace cvf::CVF_ISA;

inline constexpr int kPair = 2;  // groups

// Loops that fill and empty a tile: without it, GCC takes the tile through memory on its way to the registers.
#define CVF_UNROLL _Pragma("GCC unroll 8")

// The weights of a node: (hidden, row) elements, of which the first `inputs` of each row count.
template <class T>
struct NodeWeights {
  const T* data;
  int64_t row, hidden, inputs;
};

// pre[k * step + g] = sum_t weights(k, t) inputs[g * column + t]
template <class T>
CVF_NOINLINE void pre_activations(NodeWeights<T> weights, const Vec<T>* inputs, int64_t column, Vec<T>* pre,
                                  int64_t step) {
  for_tiles<LaneBlocks<T>::kRows>(0, weights.hidden, [&](auto rows, int64_t k) {
    constexpr int n = rows;
    Vec<T> acc[n][kPair];
    const Left<T> left{weights.data + k * weights.row, weights.row, 1};
    CVF_UNROLL
    for (int r = 0; r < n; ++r) {
      for (int g = 0; g < kPair; ++g) acc[r][g] = broadcast(left.data[r * left.row]);
    }
    multiply_tile<1, T>(acc, left, Right<T>{inputs, 1, column}, 1, weights.inputs);
    CVF_UNROLL
    for (int r = 0; r < n; ++r) {
      for (int g = 0; g < kPair; ++g) pre[(k + r) * step + g] = acc[r][g];
    }
  });
}

// inputs[g * column + j] += sum_k weights(k, 1 + j) units[k * step + g]: not to the first input, which is constant.
template <class T>
CVF_NOINLINE void pass_back(NodeWeights<T> weights, const Vec<T>* units, int64_t step, Vec<T>* inputs, int64_t column) {
  for_tiles<LaneBlocks<T>::kRows>(0, weights.inputs - 1, [&](auto rows, int64_t j) {
    constexpr int n = rows;
    Vec<T> acc[n][kPair];
    CVF_UNROLL
    for (int r = 0; r < n; ++r) {
      for (int g = 0; g < kPair; ++g) acc[r][g] = inputs[g * column + j + r];
    }
    const Left<T> left{weights.data + 1 + j, 1, weights.row};
    multiply_tile<1, T>(acc, left, Right<T>{units, step, 1}, 0, weights.hidden);
    CVF_UNROLL
    for (int r = 0; r < n; ++r) {
      for (int g = 0; g < kPair; ++g) inputs[g * column + j + r] = acc[r][g];
    }
  });
}

// sum(k, t) += sum over samples of units(k, sample) rows(sample, t), for whole vectors of t. Both `units` and `rows`
// have a stride, in elements.
template <class T>
CVF_NOINLINE void add_outer_products(const T* units, int64_t units_stride, const T* rows, int64_t rows_stride,
                                     int64_t samples, int64_t hidden, int64_t row, T* sum) {
  constexpr int kWidth = kLanes<T>;
  for_tiles<2>(0, row / kWidth, [&](auto columns, int64_t t) {
    constexpr int m = columns;
    const Right<T> right{reinterpret_cast<const Vec<T>*>(rows) + t, rows_stride / kWidth, 1};
    for_tiles<LaneBlocks<T>::kRows>(0, hidden, [&](auto tile, int64_t k) {
      constexpr int n = tile;
      Vec<T>* sums = reinterpret_cast<Vec<T>*>(sum + k * row) + t;
      Vec<T> acc[n][m];
      CVF_UNROLL
      for (int r = 0; r < n; ++r) {
        for (int c = 0; c < m; ++c) acc[r][c] = sums[r * row / kWidth + c];
      }
      multiply_tile<1, T>(acc, Left<T>{units + k * units_stride, units_stride, 1}, right, 0, samples);
      CVF_UNROLL
      for (int r = 0; r < n; ++r) {
        for (int c = 0; c < m; ++c) sums[r * row / kWidth + c] = acc[r][c];
      }
    });
  });
}

}  // namespace cvf::ancestral_sample::mlp::CVF_ISA
