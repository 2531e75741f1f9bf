// Compiled once for each instruction set: chooses the kernel for a problem and shares the work among threads.

#include <algorithm>

#include "common/batch_sum.h"
#include "common/parallel.h"
#include "ops/propagate/kernels.h"
#include "ops/propagate/lane_kernel.h"
#include "ops/propagate/shared_kernel.h"
#include "ops/propagate/tile_kernel.h"

namespace cvf::propagate::CVF_ISA {
namespace {

// Up to this d, samples across lanes are faster than one sample at a time.
constexpr int64_t kLargestLaneD = 32;
// Blocks between flushes of sums over the batch.
constexpr int64_t kFlushInterval = 64;

// Elementary operations on the matrices of `count` samples.
double matrix_work(int64_t count, int64_t d) { return static_cast<double>(count * d * d) * static_cast<double>(d); }

int64_t groups_of(int64_t batch, int64_t size) { return (batch + size - 1) / size; }

template <class T>
LaneGroup lane_group(int64_t group, int64_t batch) {
  const int64_t first = group * kLanes<T>;
  return {first, std::min<int64_t>(kLanes<T>, batch - first)};
}

// Calls body(panels) on as many threads as the panels of a matrix are worth. They get shorter from the first to the
// last, and are dealt out.
template <class T, class Body>
void share_panels(int64_t d, int requested_threads, Body&& body) {
  const int threads = threads_for(groups_of(d, kLanes<T>), matrix_work(1, d), requested_threads);
  auto part = [&](int, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; ++first) body(Panels{first, threads});
  };
  parallel_for(threads, threads, part);
}

template <class T>
void forward_lanes(const Forward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  const int64_t groups = groups_of(args.batch, kLanes<T>);
  auto body = [&](int, int64_t begin, int64_t end) {
    LaneForward<T> kernel(args, sigma);
    for (int64_t group = begin; group < end; ++group) kernel.run(lane_group<T>(group, args.batch));
  };
  parallel_for(groups, threads_for(groups, matrix_work(args.batch, args.d), requested_threads), body);
}

template <class T>
void forward_tiles(const Forward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  const int64_t square = args.d * args.d;
  auto body = [&](int, int64_t begin, int64_t end) {
    TileForward<T> kernel(sigma, args.d, args.scale_tril, args.batch);
    for (int64_t sample = begin; sample < end; ++sample) {
      kernel.loc(args.jac[sample], args.jac.end(args.batch, square), args.offset[sample], args.loc + sample * args.d);
      kernel.scale_tril(args.jac[sample], args.scale_tril + sample * square);
    }
    kernel.finish();
  };
  parallel_for(args.batch, threads_for(args.batch, matrix_work(args.batch, args.d), requested_threads), body);
}

template <class T>
void forward_shared(const Forward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  share_panels<T>(args.d, requested_threads, [&](Panels panels) {
    TileForward<T> kernel(sigma, args.d, args.scale_tril, 1);
    kernel.scale_tril(args.jac.data, args.scale_tril, panels);
    kernel.finish();
  });
  const int64_t blocks = LaneBlocks<T>::count(args.batch);
  const double work = static_cast<double>(args.batch * args.d * args.d);
  auto body = [&](int, int64_t begin, int64_t end) {
    SharedForward<T> kernel(args);
    for (int64_t block = begin; block < end; ++block) kernel.run(block);
  };
  parallel_for(blocks, threads_for(blocks, work, requested_threads), body);
}

template <class T>
void backward_lanes(const Backward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  const int64_t groups = groups_of(args.batch, kLanes<T>);
  const int threads = threads_for(groups, matrix_work(args.batch, args.d), requested_threads);
  BatchSum<T> offset(args.shared_offset ? args.grad_offset : nullptr, args.d, threads);
  BatchSum<T> log_sigma(args.grad_log_sigma, args.d, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    LaneBackward<T> kernel(args, sigma);
    for (int64_t group = begin; group < end; ++group) {
      kernel.run(lane_group<T>(group, args.batch), offset.of_thread(thread), log_sigma.of_thread(thread));
    }
  };
  parallel_for(groups, threads, body);
  offset.write();
  log_sigma.write();
}

template <class T>
void backward_tiles(const Backward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  const int64_t d = args.d, square = d * d;
  const int threads = threads_for(args.batch, matrix_work(args.batch, d), requested_threads);
  BatchSum<T> offset(args.shared_offset ? args.grad_offset : nullptr, d, threads);
  BatchSum<T> log_sigma(args.grad_log_sigma, d, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    TileBackward<T> kernel(sigma, d, args.grad_jac, args.batch);
    for (int64_t sample = begin; sample < end; ++sample) {
      const T* jac = args.jac[sample];
      const T* y = kernel.loc_adjoint(jac, args.jac.end(args.batch, square), args.upstream_loc[sample]);
      if (offset) {
        for (int64_t i = 0; i < d; ++i) offset.of_thread(thread)[i] += static_cast<double>(y[i]);
      } else if (args.grad_offset) {
        std::copy(y, y + d, args.grad_offset + sample * d);
      }
      if (!args.grad_jac && !log_sigma) continue;
      const Batched<T>& upstream = args.upstream_scale_tril;
      kernel.factor_adjoint(jac, upstream[sample], upstream.end(args.batch, square));
      if (log_sigma) kernel.add_log_sigma_gradient(log_sigma.of_thread(thread));
      if (args.grad_jac) {
        kernel.transpose_factor(args.scale_tril[sample], args.scale_tril.end(args.batch, square));
        kernel.jac_gradient(args.loc[sample], args.grad_jac + sample * square);
      }
    }
    kernel.finish();
  };
  parallel_for(args.batch, threads, body);
  offset.write();
  log_sigma.write();
}

// What comes from the gradient of scale_tril, of which there is one.
template <class T>
void backward_shared_factor(const Backward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  if (!args.grad_jac && !args.grad_log_sigma) return;
  const int64_t d = args.d, square = d * d;
  const T* upstream = args.upstream_scale_tril.data;
  const T* scale_tril = args.scale_tril.data;
  TileBackward<T> kernel(sigma, d, args.grad_jac, 1);
  share_panels<T>(d, requested_threads,
                  [&](Panels panels) { kernel.factor_adjoint(args.jac.data, upstream, upstream + square, panels); });
  if (args.grad_log_sigma) {
    BatchSum<T> log_sigma(args.grad_log_sigma, d, 1);
    kernel.add_log_sigma_gradient(log_sigma.of_thread(0));
    log_sigma.write();
  }
  if (!args.grad_jac) return;
  kernel.transpose_factor(scale_tril, scale_tril + square);
  share_panels<T>(d, requested_threads, [&](Panels panels) {
    kernel.jac_gradient(nullptr, args.grad_jac, panels);
    kernel.finish();
  });
}

template <class T>
void backward_shared(const Backward<T>& args, const Sigma<T>& sigma, int requested_threads) {
  backward_shared_factor(args, sigma, requested_threads);
  if (!args.grad_jac && !args.grad_offset) return;
  const int64_t d = args.d, blocks = LaneBlocks<T>::count(args.batch);
  const int threads = threads_for(blocks, static_cast<double>(args.batch * d * d), requested_threads);
  BatchSum<T> jac(args.grad_jac, d * d, threads, requested_threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    SharedBackward<T> kernel(args);
    for (int64_t block = begin; block < end; ++block) {
      kernel.run(block);
      const bool flushes = (block - begin + 1) % kFlushInterval == 0 || block + 1 == end;
      if (jac && flushes) kernel.flush(jac.of_thread(thread));
    }
  };
  parallel_for(blocks, threads, body);
  jac.write(true);  // onto the part of scale_tril
}

}  // namespace

template <class T>
void forward(const Forward<T>& args, int threads) {
  const Sigma<T> sigma(args.log_sigma, args.d);
  if (args.shared_jac) return forward_shared(args, sigma, threads);
  if (args.d <= kLargestLaneD) return forward_lanes(args, sigma, threads);
  return forward_tiles(args, sigma, threads);
}

template <class T>
void backward(const Backward<T>& args, int threads) {
  const Sigma<T> sigma(args.log_sigma, args.d);
  if (args.shared_jac) return backward_shared(args, sigma, threads);
  if (args.d <= kLargestLaneD) return backward_lanes(args, sigma, threads);
  return backward_tiles(args, sigma, threads);
}

template void forward<float>(const Forward<float>&, int);
template void forward<double>(const Forward<double>&, int);
template void backward<float>(const Backward<float>&, int);
template void backward<double>(const Backward<double>&, int);

}  // namespace cvf::propagate::CVF_ISA
