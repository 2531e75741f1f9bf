// Compiled once for each instruction set: chooses the kernel for a problem and shares the batch among threads.

#include <algorithm>

#include "common/parallel.h"
#include "ops/sem_kl/kernels.h"
#include "ops/sem_kl/lane_kernel.h"
#include "ops/sem_kl/row_kernel.h"
#include "ops/sem_kl/shared_diagonal_kernel.h"
#include "ops/sem_kl/tile_kernel.h"

namespace cvf::sem_kl::CVF_ISA {
namespace {

// Up to these d, samples across lanes are faster than one sample at a time.
constexpr int64_t kLargestFullLaneD = 64;
constexpr int64_t kLargestDiagonalLaneD = 32;
// Groups or samples between flushes of the sums over the batch.
constexpr int64_t kFlushInterval = 64;

// Calls body(begin, end) for consecutive pieces of [begin, end) of at most kFlushInterval.
template <class Body>
void in_pieces(int64_t begin, int64_t end, Body&& body) {
  for (; begin < end; begin += kFlushInterval) body(begin, std::min(begin + kFlushInterval, end));
}

template <class T>
void run_lanes(const Arguments<T>& args, const Noise<T>& noise, int requested_threads) {
  const int64_t width = kLanes<T>;
  const int64_t groups = (args.batch + width - 1) / width;
  const double square = static_cast<double>(args.batch * args.d * args.d);
  const double work = args.scale_tril ? square * static_cast<double>(args.d) : square;
  const int threads = threads_for(groups, work, requested_threads);
  SharedSums<T> sums(args, threads, requested_threads, args.d);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    LaneKernel<T> kernel(args, noise);
    in_pieces(begin, end, [&](int64_t first, int64_t last) {
      for (int64_t g = first; g < last; ++g) kernel.run({g * width, std::min(width, args.batch - g * width)});
      if (args.wants_gradient()) kernel.flush(sums, thread);
    });
    kernel.finish();
  };
  parallel_for(groups, threads, body);
  sums.write();
}

template <class T, bool kPacked>
void run_rows(const Arguments<T>& args, const Noise<T>& noise, int requested_threads) {
  const double work = static_cast<double>(args.batch * args.d * args.d);
  const int threads = threads_for(args.batch, work, requested_threads);
  SharedSums<T> sums(args, threads, requested_threads, args.d);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    RowKernel<T, kPacked> kernel(args, noise);
    for (int64_t sample = begin; sample < end; ++sample) {
      kernel.run(sample, sums.offset(thread), sums.log_sigma(thread));
    }
    kernel.finish();
  };
  parallel_for(args.batch, threads, body);
  sums.write();
}

template <class T>
void run_tiles(const Arguments<T>& args, const Noise<T>& noise, int requested_threads) {
  const double work = static_cast<double>(args.batch * args.d * args.d) * static_cast<double>(args.d);
  const int threads = threads_for(args.batch, work, requested_threads);
  SharedSums<T> sums(args, threads, requested_threads, TileKernel<T>::padded_row(args.d));
  auto body = [&](int thread, int64_t begin, int64_t end) {
    TileKernel<T> kernel(args, noise);
    in_pieces(begin, end, [&](int64_t first, int64_t last) {
      for (int64_t sample = first; sample < last; ++sample) {
        kernel.run(sample, sums.jac(thread), sums.offset(thread), sums.log_sigma(thread));
      }
      if (sums.sums_jac()) sums.flush_jac(thread);
    });
    kernel.finish();
  };
  parallel_for(args.batch, threads, body);
  sums.write();
}

template <class T>
void run_shared_diagonal(const Arguments<T>& args, const Noise<T>& noise, int requested_threads) {
  using Kernel = SharedDiagonalKernel<T>;
  const int64_t blocks = (args.batch + Kernel::kBlock - 1) / Kernel::kBlock;
  const double work = static_cast<double>(args.batch * args.d * args.d);
  const int threads = threads_for(blocks, work, requested_threads);
  const SharedJac<T> shared(args, noise);
  SharedSums<T> sums(args, threads, requested_threads, Kernel::padded_row(args.d));
  auto body = [&](int thread, int64_t begin, int64_t end) {
    Kernel kernel(args, noise, shared);
    in_pieces(begin, end, [&](int64_t first_block, int64_t last_block) {
      for (int64_t block = first_block; block < last_block; ++block) {
        const int64_t first = block * Kernel::kBlock;
        const int64_t count = std::min(Kernel::kBlock, args.batch - first);
        kernel.run(first, count, sums.jac(thread), sums.offset(thread), sums.log_sigma(thread));
      }
      if (!args.wants_gradient()) return;
      kernel.flush(sums.jac(thread), sums.log_sigma(thread));
      if (sums.sums_jac()) sums.flush_jac(thread);
    });
  };
  parallel_for(blocks, threads, body);
  sums.write();
}

}  // namespace

template <class T>
void run(const Arguments<T>& args, int threads) {
  const Noise<T> noise(args.log_sigma, args.d);
  if (args.scale && args.shared_jac) return run_shared_diagonal(args, noise, threads);
  if (args.d <= (args.scale ? kLargestDiagonalLaneD : kLargestFullLaneD)) return run_lanes(args, noise, threads);
  if (args.scale && args.packed_jac) return run_rows<T, true>(args, noise, threads);
  if (args.scale) return run_rows<T, false>(args, noise, threads);
  return run_tiles(args, noise, threads);
}

template void run<float>(const Arguments<float>&, int);
template void run<double>(const Arguments<double>&, int);

}  // namespace cvf::sem_kl::CVF_ISA
