// Compiled once for each instruction set: cuts the batch into tiles, and the nodes into blocks whose weights stay in
// the cache, and shares them among threads.

#include <algorithm>
#include <optional>

#include "common/parallel.h"
#include "ops/mlp_sem_kl/diagonal_kernel.h"
#include "ops/mlp_sem_kl/full_kernel.h"

namespace cvf::mlp_sem_kl::CVF_ISA {
namespace {

constexpr int64_t kWeightBytes = 192 << 10;  // of a block of nodes, with their gradients
constexpr int64_t kSampleBytes = 32 << 20;   // of what is kept of samples while the nodes pass
constexpr int64_t kFlushInterval = 64;       // tiles between flushes of sums over the batch

template <class T>
int threads_of(const Arguments<T>& args, int64_t samples, int requested) {
  // An activation costs about as much as 16 inputs; gradients twice as much as values.
  const double units = static_cast<double>(samples * args.d * args.hidden);
  const double work = units * static_cast<double>(args.d + 32) * (args.wants_gradient() ? 1.5 : 0.5);
  return threads_for(samples, work, requested);
}

// The end of a block of nodes from `first` on.
template <class T>
int64_t end_of_block(const Arguments<T>& args, int64_t first) {
  int64_t bytes = 0, end = first;
  do bytes += NodeWeights<T>::bytes(args, end++);
  while (end < args.d && bytes + NodeWeights<T>::bytes(args, end) <= kWeightBytes);
  return end;
}

// Calls tile(thread, first, count) for tiles of [0, samples), at most `most` samples each, and flushes the thread's
// sums.
template <class T, class Kernel, class Tile>
void for_tiles_of(int64_t samples, int64_t most, int threads, NodeGradients<T>* gradients, Kernel&& make, Tile&& run) {
  const int64_t size = std::clamp<int64_t>((samples + threads - 1) / threads, 1, most);
  auto body = [&](int thread, int64_t begin, int64_t end) {
    auto kernel = make();
    for (int64_t tile = begin; tile < end; ++tile) {
      run(kernel, thread, tile * size, std::min(size, samples - tile * size));
      if (gradients && ((tile - begin + 1) % kFlushInterval == 0 || tile + 1 == end)) gradients->flush(thread);
    }
  };
  parallel_for((samples + size - 1) / size, threads, body);
}

template <class T>
void run_diagonal(const Arguments<T>& args, const Noise<T>& noise, int requested_threads) {
  const int64_t row = round_up(args.d, kLanes<T>);
  const int64_t most = std::max<int64_t>(kSampleBytes / (6 * row * static_cast<int64_t>(sizeof(T))), 1);
  int64_t begin = 0;
  do {
    const int64_t count = std::min(most, args.batch - begin);
    const int threads = threads_of(args, count, requested_threads);
    Samples<T> samples(args, begin, count);
    for (int64_t i = 0; i < args.d;) {
      const int64_t end = end_of_block(args, i);
      const NodeWeights<T> weights(args, i, end);
      std::optional<NodeGradients<T>> gradients;
      if (args.wants_gradient()) gradients.emplace(args, weights, end, threads);
      for_tiles_of<T>(
          count, NodeKernel<T>::kSamples, threads, gradients ? &*gradients : nullptr,
          [&] { return DiagonalKernel<T>(args, noise); },
          [&](DiagonalKernel<T>& kernel, int thread, int64_t first, int64_t size) {
            for (int64_t node = i; node < end; ++node) {
              typename NodeGradients<T>::Sums sums{};
              if (gradients) sums = gradients->of(thread, node);
              kernel.run(weights.node(node), samples, begin, first, size, gradients ? &sums : nullptr);
            }
          });
      if (gradients) gradients->write(begin > 0);
      i = end;
    }
    samples.finish(noise);
    begin += count;
  } while (begin < args.batch);
}

template <class T>
void run_full(const Arguments<T>& args, int requested_threads) {
  const int threads = threads_of(args, args.batch, requested_threads);
  const NodeWeights<T> weights(args, 0, args.d);
  std::optional<NodeGradients<T>> gradients;
  if (args.wants_gradient()) gradients.emplace(args, weights, args.d, threads);
  NodeGradients<T>* const wanted = gradients ? &*gradients : nullptr;
  for_tiles_of<T>(
      args.batch, FullKernel<T>::samples(args.d), threads, wanted, [&] { return FullKernel<T>(args, weights); },
      [&](FullKernel<T>& kernel, int thread, int64_t first, int64_t size) { kernel.run(first, size, wanted, thread); });
  if (gradients) gradients->write(false);
}

}  // namespace

template <class T>
void run(const Arguments<T>& args, int threads) {
  if (args.scale_tril) return run_full(args, threads);
  run_diagonal(args, Noise<T>(args.log_sigma, args.d), threads);
}

template void run<float>(const Arguments<float>&, int);
template void run<double>(const Arguments<double>&, int);

}  // namespace cvf::mlp_sem_kl::CVF_ISA
