// Compiled once for each instruction set: packs the weights and shares the batch among threads.

#include <algorithm>

#include "common/batch_sum.h"
#include "common/parallel.h"
#include "ops/ancestral_sample/mlp_kernel.h"

namespace cvf::ancestral_sample::mlp::CVF_ISA {
namespace {

constexpr int64_t kCachedBytes = 16 << 10;  // of the hidden units of a block
constexpr int64_t kFlushInterval = 2048;    // samples between flushes of sums over the batch

// How the batch is cut: into blocks of so many groups, on so many threads.
template <class T>
struct Schedule {
  int64_t groups, blocks;
  int threads;

  int64_t samples() const { return groups * kLanes<T>; }

  Schedule(const Equations<T>& e, int requested_threads) {
    const int64_t pairs = (e.batch + kPair * kLanes<T> - 1) / (kPair * kLanes<T>);
    // An activation costs about as much as 16 inputs.
    const double work = 0.25 * static_cast<double>(e.batch * e.d * e.hidden) * static_cast<double>(e.d + 32);
    threads = threads_for(pairs, work, requested_threads);
    const int64_t cached = kCachedBytes / (e.hidden * kPair * kVectorBytes);
    const int64_t most = std::clamp<int64_t>(cached, 1, BlockKernel<T>::kMostGroups / kPair);
    const int64_t pairs_of_block = std::clamp<int64_t>(pairs / threads, 1, most);
    groups = pairs_of_block * kPair;
    blocks = (pairs + pairs_of_block - 1) / pairs_of_block;
  }
};

// Calls body(i) for all nodes, on as many threads as it is worth to move their weights.
template <class T, class Body>
void for_nodes(const Equations<T>& e, int requested_threads, Body&& body) {
  const double work = kWorkToMove * static_cast<double>(e.d * e.hidden) * static_cast<double>(e.d);
  parallel_dealt(e.d, threads_for(e.d, work, requested_threads), body);
}

}  // namespace

template <class T>
void forward(const Forward<T>& args, int requested_threads) {
  const Equations<T>& e = args.equations;
  const Schedule<T> schedule(e, requested_threads);
  Scratch<T> weights(PackedLayout<T>{e.d, e.hidden}.offset(e.d));
  for_nodes(e, requested_threads, [&](int64_t i) { pack(e, i, weights.data()); });
  auto body = [&](int, int64_t begin, int64_t end) {
    ForwardKernel<T> kernel(args, weights.data(), schedule.groups);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * schedule.samples();
      kernel.run(first, std::min(schedule.samples(), e.batch - first));
    }
  };
  parallel_for(schedule.blocks, schedule.threads, body);
}

template <class T>
void backward(const Backward<T>& args, int requested_threads) {
  const Equations<T>& e = args.equations;
  const Schedule<T> schedule(e, requested_threads);
  const int threads = schedule.threads;
  const int64_t size = PackedLayout<T>{e.d, e.hidden}.offset(e.d);
  const bool sums_weights = args.grad_w_in || args.grad_b_in || args.grad_edges;
  Scratch<T> weights(size), gradient(sums_weights ? size : 0);
  for_nodes(e, requested_threads, [&](int64_t i) { pack(e, i, weights.data()); });
  BatchSum<T> weights_sum(sums_weights ? gradient.data() : nullptr, size, threads);
  BatchSum<T> w_out(args.grad_w_out, e.d * e.hidden, threads), b_out(args.grad_b_out, e.d, threads);
  BatchSum<T> values(args.shared_values ? args.grad_values : nullptr, e.d, threads);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    BackwardKernel<T> kernel(args, weights.data(), schedule.groups, sums_weights);
    const Totals totals{weights_sum.of_thread(thread), w_out.of_thread(thread), b_out.of_thread(thread),
                        values.of_thread(thread)};
    const int64_t interval = std::max<int64_t>(1, kFlushInterval / schedule.samples());
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * schedule.samples();
      kernel.run(first, std::min(schedule.samples(), e.batch - first));
      if ((block - begin + 1) % interval == 0 || block + 1 == end) kernel.flush(totals);
    }
  };
  parallel_for(schedule.blocks, threads, body);
  for (const BatchSum<T>* sum : {&weights_sum, &w_out, &b_out, &values}) sum->write();
  if (sums_weights) for_nodes(e, requested_threads, [&](int64_t i) { unpack_gradients(args, i, gradient.data()); });
}

template void forward<float>(const Forward<float>&, int);
template void forward<double>(const Forward<double>&, int);
template void backward<float>(const Backward<float>&, int);
template void backward<double>(const Backward<double>&, int);

}  // namespace cvf::ancestral_sample::mlp::CVF_ISA
