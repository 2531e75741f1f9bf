// Compiled once for each instruction set: chooses the layout for a problem and shares the batch among threads.

#include <algorithm>

#include "common/parallel.h"
#include "ops/gaussian_kl/across_samples.h"
#include "ops/gaussian_kl/along_rows.h"
#include "ops/gaussian_kl/kernel.h"
#include "ops/gaussian_kl/kernels.h"

namespace cvf::gaussian_kl::CVF_ISA {
namespace {

// Up to this d, samples across lanes are faster than one sample at a time.
constexpr int64_t kLargestLaneD = 128;
// Up to this one, they are even where most lanes have no sample.
constexpr int64_t kLargestIdleLaneD = 32;

// Depends on the problem alone, not on threads, so that a sample's numbers do not depend on them either.
template <class T>
bool lanes_are_faster(int64_t batch, int64_t d) {
  const int64_t lanes = AcrossSamples<T>::units(batch) * kLanes<T>;
  return d <= kLargestIdleLaneD || (d <= kLargestLaneD && 2 * lanes <= 3 * batch);
}

// Units of work between flushes of the sums over the batch.
constexpr int64_t kFlushInterval = 64;

template <class T, class Layout>
void run_units(const Arguments<T>& args, int requested_threads) {
  const int64_t units = Layout::units(args.batch);
  const double work = static_cast<double>(args.batch * args.d * args.d) * static_cast<double>(args.d);
  const int threads = threads_for(units, work, requested_threads);
  SharedSums<T> sums(args, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    Kernel<T, Layout> kernel(args);
    while (begin < end) {
      const int64_t next = std::min(begin + kFlushInterval, end);
      for (; begin < next; ++begin) kernel.run(begin);
      kernel.flush(sums, thread);
    }
    kernel.finish();
  };
  parallel_for(units, threads, body);
  sums.write();
}

}  // namespace

template <class T>
void run(const Arguments<T>& args, int threads) {
  if (lanes_are_faster<T>(args.batch, args.d)) return run_units<T, AcrossSamples<T>>(args, threads);
  return run_units<T, AlongRows<T>>(args, threads);
}

template void run<float>(const Arguments<float>&, int);
template void run<double>(const Arguments<double>&, int);

}  // namespace cvf::gaussian_kl::CVF_ISA
