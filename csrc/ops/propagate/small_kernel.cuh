// At most 32 nodes: a group of lanes for each sample, with its matrices in shared memory. A lane has a column of the
// factor, and a row of the mean.
#pragma once

#include <cmath>

#include "common/cuda/group.cuh"
#include "ops/propagate/propagate.h"

namespace cvf::propagate::cuda {

using namespace cvf::cuda;

template <class T>
__global__ void __launch_bounds__(kGroupThreads) small_forward(Forward<T> args, int width) {
  const int64_t d = args.d;
  const int pitch = static_cast<int>(d) | 1;
  const Group group(width, args.batch);
  const int i = group.lane;
  T* const matrix = shared_memory<T>() + group.place * group_elements(1, d, width);  // of A, whose rows S replaces
  load_rows(matrix, args.jac[group.sample], d, pitch, i);
  __syncwarp();
  T mean = i < d ? args.offset[group.sample][i] : T(0);
  for (int k = 0; k < d; ++k) {
    const T known = __shfl_sync(kAllLanes, mean, k, width);
    if (i > k && i < d) mean += matrix[i * pitch + k] * known;
  }
  if (i < d && group.is_there) args.loc[group.sample * d + i] = mean;
  __syncwarp();
  for (int row = 0; row < d; ++row) {
    T x = 0;
    if (i < row) {
      for (int k = i; k < row; ++k) x += matrix[row * pitch + k] * matrix[k * pitch + i];
    } else if (i == row) {
      x = std::exp(args.log_sigma[i]);
    }
    __syncwarp();
    if (i <= row) matrix[row * pitch + i] = x;
    if (i < d && group.is_there) args.scale_tril[(group.sample * d + row) * d + i] = x;
    __syncwarp();
  }
}

// adjoint (B, d): W^-T upstream_loc; log_sigma (B, d): the gradient of each sample. Either may be null.
template <class T>
__global__ void __launch_bounds__(kGroupThreads) small_backward(Backward<T> args, T* adjoint, T* log_sigma, int width) {
  const int64_t d = args.d, square = d * d;
  const int pitch = static_cast<int>(d) | 1;
  const Group group(width, args.batch);
  const int i = group.lane;
  T* const matrix = shared_memory<T>() + group.place * group_elements(2, d, width);  // A, later S
  T* const solution = matrix + d * pitch;                                            // Y = W^-T upstream_scale_tril
  load_rows(matrix, args.jac[group.sample], d, pitch, i);
  load_rows(solution, args.upstream_scale_tril[group.sample], d, pitch, i, true);
  __syncwarp();
  T mean = i < d ? args.upstream_loc[group.sample][i] : T(0);
  for (int k = static_cast<int>(d) - 1; k > 0; --k) {
    const T known = __shfl_sync(kAllLanes, mean, k, width);
    if (i < k) mean += matrix[k * pitch + i] * known;
  }
  if (i < d && group.is_there && adjoint != nullptr) adjoint[group.sample * d + i] = mean;
  for (int row = static_cast<int>(d) - 1; row >= 0; --row) {
    if (i > row) continue;
    T x = solution[row * pitch + i];
    for (int k = row + 1; k < d; ++k) x += matrix[k * pitch + row] * solution[k * pitch + i];
    solution[row * pitch + i] = x;
  }
  if (i < d && group.is_there && log_sigma != nullptr)
    log_sigma[group.sample * d + i] = solution[i * pitch + i] * std::exp(args.log_sigma[i]);
  if (args.grad_jac == nullptr) return;
  __syncwarp();
  load_rows(matrix, args.scale_tril[group.sample], d, pitch, i, true);
  __syncwarp();
  const T loc = i < d ? args.loc[group.sample][i] : T(0);
  for (int row = 0; row < d; ++row) {
    const T factor = __shfl_sync(kAllLanes, mean, row, width);
    if (i >= d || !group.is_there) continue;
    T x = 0;
    if (i < row) {
      x = factor * loc;
      for (int k = 0; k <= i; ++k) x += solution[row * pitch + k] * matrix[i * pitch + k];
    }
    args.grad_jac[group.sample * square + row * d + i] = x;
  }
}

}  // namespace cvf::propagate::cuda
