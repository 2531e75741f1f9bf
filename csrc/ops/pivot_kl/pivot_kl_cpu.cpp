// Compiled once for each instruction set: shares the batch among threads.

#include <algorithm>

#include "common/parallel.h"
#include "ops/pivot_kl/group_kernel.h"
#include "ops/pivot_kl/kernels.h"
#include "ops/pivot_kl/pivot_sums.h"

namespace cvf::pivot_kl::CVF_ISA {
namespace {

// Groups of samples between flushes of the sums over the batch.
constexpr int64_t kFlushInterval = 64;

}  // namespace

template <class T>
void run(const Arguments<T>& args, int requested_threads) {
  const int64_t width = kLanes<T>;
  const int64_t groups = (args.batch + width - 1) / width;
  const double square = static_cast<double>(args.batch * args.pivots * args.d * args.d);
  const double work = args.scale_tril ? square * static_cast<double>(args.d) : square;
  const int threads = threads_for(groups, work, requested_threads);
  const Pivots<T> pivots(args, threads);
  PivotSums<T> sums(args, pivots, threads, args.wants_gradient() && groups > threads * kFlushInterval);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    GroupKernel<T> kernel(args, pivots, sums, thread);
    while (begin < end) {
      const int64_t next = std::min(begin + kFlushInterval, end);
      for (; begin < next; ++begin) kernel.run({begin * width, std::min(width, args.batch - begin * width)});
      sums.flush(thread);
    }
  };
  parallel_for(groups, threads, body);
  sums.write();
}

template void run<float>(const Arguments<float>&, int);
template void run<double>(const Arguments<double>&, int);

}  // namespace cvf::pivot_kl::CVF_ISA
