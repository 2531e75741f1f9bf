// The loop over the batch.
#pragma once

#include <cstdint>

namespace cvf {

// How many threads a loop of `items` equal pieces, `work` elementary operations in all, is worth. At most
// `requested`; one in a forked child, since a GNU OpenMP pool does not survive a fork.
int threads_for(int64_t items, double work, int requested);

// Whether the library was built with OpenMP.
bool has_openmp();

// Runs body(context, thread, begin, end) on `threads` threads, which share [0, items) in contiguous pieces that
// depend on `items` and `threads` only, so that sums over a thread's piece are the same in every run.
void parallel_for(int64_t items, int threads, void (*body)(void*, int, int64_t, int64_t), void* context);

template <class Body>
void parallel_for(int64_t items, int threads, Body& body) {
  parallel_for(
      items, threads,
      [](void* context, int thread, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(thread, begin, end); },
      &body);
}

// The elementary operations that take as long as moving a number from and to memory.
inline constexpr double kWorkToMove = 10;

// Calls body(item) for all items, which `threads` threads share in contiguous pieces.
template <class Body>
void parallel_each(int64_t items, int threads, Body&& body) {
  auto part = [&](int, int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) body(item);
  };
  parallel_for(items, threads, part);
}

// Items that get larger or smaller from the first to the last, dealt out to `threads` threads: forwards, backwards,
// and so on, so that all get the same. Those of a thread begin with the number of the thread.
inline int64_t next_dealt(int64_t item, int threads) {
  return (item / threads + 1) * threads + (threads - 1 - item % threads);
}

// Calls body(item) for all items, which are dealt out.
template <class Body>
void parallel_dealt(int64_t items, int threads, Body&& body) {
  auto part = [&](int, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; ++first) {
      for (int64_t item = first; item < items; item = next_dealt(item, threads)) body(item);
    }
  };
  parallel_for(threads, threads, part);
}

}  // namespace cvf
