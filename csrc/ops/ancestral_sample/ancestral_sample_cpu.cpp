// Compiled once for each instruction set: chooses the kernel for a problem and shares the batch among threads.

#include <algorithm>

#include "common/batch_sum.h"
#include "common/parallel.h"
#include "ops/ancestral_sample/kernels.h"
#include "ops/ancestral_sample/row_kernel.h"
#include "ops/ancestral_sample/shared_kernel.h"

namespace cvf::ancestral_sample::CVF_ISA {
namespace {

// Blocks between flushes of sums over the batch.
constexpr int64_t kFlushInterval = 64;

template <class T>
int threads_worth(const Equations<T>& equations, int64_t items, int requested_threads) {
  const double matrices = equations.quadratic ? 2 : 1;
  const double work = matrices * static_cast<double>(equations.batch * equations.d * equations.d);
  return threads_for(items, work, requested_threads);
}

template <class T>
int64_t groups_of(const Equations<T>& equations) {
  return (equations.batch + kLanes<T> - 1) / kLanes<T>;
}

template <class T>
LaneGroup lane_group(const Equations<T>& equations, int64_t group) {
  const int64_t first = group * kLanes<T>;
  return {first, std::min<int64_t>(kLanes<T>, equations.batch - first)};
}

template <class T, bool kQuadratic>
void forward_rows(const Forward<T>& args, int requested_threads) {
  const int64_t groups = groups_of(args.equations);
  auto body = [&](int, int64_t begin, int64_t end) {
    RowForward<T, kQuadratic> kernel(args);
    for (int64_t group = begin; group < end; ++group) kernel.run(lane_group(args.equations, group));
  };
  parallel_for(groups, threads_worth(args.equations, groups, requested_threads), body);
}

template <class T, bool kQuadratic>
void forward_shared(const Forward<T>& args, int requested_threads) {
  const int64_t blocks = LaneBlocks<T>::count(args.equations.batch);
  auto body = [&](int, int64_t begin, int64_t end) {
    SharedForward<T, kQuadratic> kernel(args);
    for (int64_t block = begin; block < end; ++block) kernel.run(block);
  };
  parallel_for(blocks, threads_worth(args.equations, blocks, requested_threads), body);
}

template <class T, bool kQuadratic>
void backward_rows(const Backward<T>& args, int requested_threads) {
  const int64_t d = args.equations.d, groups = groups_of(args.equations);
  const int threads = threads_worth(args.equations, groups, requested_threads);
  BatchSum<T> offset(args.grad_offset, d, threads);
  BatchSum<T> values(args.shared_values ? args.grad_values : nullptr, d, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    RowBackward<T, kQuadratic> kernel(args);
    for (int64_t group = begin; group < end; ++group) {
      kernel.run(lane_group(args.equations, group), offset.of_thread(thread), values.of_thread(thread));
    }
    kernel.finish();
  };
  parallel_for(groups, threads, body);
  offset.write();
  values.write();
}

template <class T, bool kQuadratic>
void backward_shared(const Backward<T>& args, int requested_threads) {
  const int64_t d = args.equations.d, blocks = LaneBlocks<T>::count(args.equations.batch);
  const int threads = threads_worth(args.equations, blocks, requested_threads);
  BatchSum<T> offset(args.grad_offset, d, threads);
  BatchSum<T> values(args.shared_values ? args.grad_values : nullptr, d, threads);
  BatchSum<T> jac(args.grad_jac, d * d, threads), quadratic(args.grad_quadratic, d * d, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    SharedBackward<T, kQuadratic> kernel(args);
    for (int64_t block = begin; block < end; ++block) {
      kernel.run(block, offset.of_thread(thread), values.of_thread(thread));
      const bool flushes = (block - begin + 1) % kFlushInterval == 0 || block + 1 == end;
      if (flushes) kernel.flush(jac.of_thread(thread), quadratic.of_thread(thread));
    }
  };
  parallel_for(blocks, threads, body);
  for (const BatchSum<T>* sum : {&offset, &values, &jac, &quadratic}) sum->write();
}

}  // namespace

template <class T>
void forward(const Forward<T>& args, int threads) {
  const Equations<T>& equations = args.equations;
  if (equations.shared_jac) {
    return equations.quadratic ? forward_shared<T, true>(args, threads) : forward_shared<T, false>(args, threads);
  }
  return equations.quadratic ? forward_rows<T, true>(args, threads) : forward_rows<T, false>(args, threads);
}

template <class T>
void backward(const Backward<T>& args, int threads) {
  const Equations<T>& equations = args.equations;
  if (equations.shared_jac) {
    return equations.quadratic ? backward_shared<T, true>(args, threads) : backward_shared<T, false>(args, threads);
  }
  return equations.quadratic ? backward_rows<T, true>(args, threads) : backward_rows<T, false>(args, threads);
}

template void forward<float>(const Forward<float>&, int);
template void forward<double>(const Forward<double>&, int);
template void backward<float>(const Backward<float>&, int);
template void backward<double>(const Backward<double>&, int);

}  // namespace cvf::ancestral_sample::CVF_ISA
