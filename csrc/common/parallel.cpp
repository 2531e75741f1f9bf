#include "common/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace cvf {
namespace {

// A parallel region costs about 10 us on a quiet machine and far more on a busy one; this is some 50 us of work.
constexpr double kWorkPerThread = 1e6;

std::atomic<bool> forked_child{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked_child = true; });
#endif

}  // namespace

int threads_for(int64_t items, double work, int requested) {
  if (forked_child || !has_openmp()) return 1;
  const double worth = std::min({static_cast<double>(requested), work / kWorkPerThread, static_cast<double>(items)});
  return std::max(1, static_cast<int>(worth));
}

bool has_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

void parallel_for(int64_t items, int threads, void (*body)(void*, int, int64_t, int64_t), void* context) {
  if (threads <= 1) {
    if (items > 0) body(context, 0, 0, items);
    return;
  }
  std::exception_ptr failure;  // an exception must not leave a parallel region
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static, 1)
#endif
  for (int thread = 0; thread < threads; ++thread) {
    const int64_t begin = items * thread / threads;
    const int64_t end = items * (thread + 1) / threads;
    try {
      if (begin < end) body(context, thread, begin, end);
    } catch (...) {
#ifdef _OPENMP
#pragma omp critical
#endif
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace cvf
