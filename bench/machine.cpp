// What this machine can do at most: fused multiply-adds in registers, and bytes moved to and from working sets of any
// size.
//
// Not part of the package: machine.py compiles it when a benchmark starts, for the processor that it runs on.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/simd.h"

namespace {

using namespace cvf::CVF_ISA;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Chains of dependent operations: more than the latency of one times the number of units, and within the registers.
constexpr int kChains = kManyRegisters ? 24 : 12;
constexpr int kStepsPerBurst = 20000;
constexpr double kFlopsPerBurst = 2.0 * kChains * kStepsPerBurst;  // for each lane

// Hides from the compiler what a value is and what becomes of it, so that it computes. By value: a variable whose own
// address went into the asm would not stay in a register.
template <class V>
CVF_INLINE V hidden(V value) {
  asm volatile("" : "+m"(value));
  return value;
}

template <class T>
void multiply_add_burst() {
  const Vec<T> factor = hidden(broadcast<T>(T(0.999))), summand = hidden(broadcast<T>(T(0.001)));
  Vec<T> sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast<T>(T(i));
  for (int step = 0; step < kStepsPerBurst; ++step) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + summand;
  }
  for (int i = 0; i < kChains; ++i) hidden(sums[i]);
}

constexpr int kFewestRounds = 8;

// Runs `work(thread, round)` in all threads at once, round after round, for `seconds`; the shortest round. A round ends
// when all threads are done with it, so that its time is that of all the work.
template <class Work>
double shortest_round(int threads, double seconds, const Work& work) {
  std::atomic<int> started{0}, arrived{0};
  std::atomic<int64_t> round{-1};
  std::atomic<bool> stop{false};
  std::vector<std::thread> helpers;
  for (int thread = 1; thread < threads; ++thread) {
    helpers.emplace_back([&, thread] {
      started.fetch_add(1);
      int64_t done = -1;
      for (;;) {
        int64_t next;
        while ((next = round.load(std::memory_order_acquire)) == done) {
          if (stop.load()) return;
        }
        work(thread, next);
        done = next;
        arrived.fetch_add(1, std::memory_order_release);
      }
    });
  }
  while (started.load() < threads - 1) std::this_thread::yield();
  double best = 1e30;
  const auto begin = Clock::now();
  for (int64_t i = 0; i < kFewestRounds || seconds_since(begin) < seconds; ++i) {
    arrived.store(0);
    const auto start = Clock::now();
    round.store(i, std::memory_order_release);
    work(0, i);
    while (arrived.load(std::memory_order_acquire) < threads - 1) {
    }
    best = std::min(best, seconds_since(start));
  }
  stop.store(true);
  for (std::thread& helper : helpers) helper.join();
  return best;
}

template <class T>
double multiply_add_rate(int threads, double seconds) {
  const double time = shortest_round(threads, seconds, [](int, int64_t) { multiply_add_burst<T>(); });
  return threads * kLanes<T> * kFlopsPerBurst / time;
}

using V = Vec<float>;

void read(const float* from, int64_t vectors) {
  constexpr int kWays = 8;
  V sums[kWays] = {};
  int64_t i = 0;
  for (; i + kWays <= vectors; i += kWays) {
#pragma GCC unroll 8
    for (int way = 0; way < kWays; ++way) sums[way] += load(from + (i + way) * kLanes<float>);
  }
  for (; i < vectors; ++i) sums[0] += load(from + i * kLanes<float>);
  for (int way = 0; way < kWays; ++way) hidden(sums[way]);
}

template <bool kPastTheCache>
void write(float* to, int64_t vectors) {
  const V value = hidden(broadcast<float>(1.0F));
#pragma GCC unroll 8
  for (int64_t i = 0; i < vectors; ++i) {
    if constexpr (kPastTheCache) {
      stream(to + i * kLanes<float>, value);
    } else {
      store(to + i * kLanes<float>, value);
    }
  }
  if constexpr (kPastTheCache) finish_streaming();
  asm volatile("" : : : "memory");
}

template <bool kPastTheCache>
void copy(const float* from, float* to, int64_t vectors) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < vectors; ++i) {
    const V value = load(from + i * kLanes<float>);
    if constexpr (kPastTheCache) {
      stream(to + i * kLanes<float>, value);
    } else {
      store(to + i * kLanes<float>, value);
    }
  }
  if constexpr (kPastTheCache) finish_streaming();
  asm volatile("" : : : "memory");
}

// Two numbers read for one written, the mixture that processors with two loads and a store a cycle do best.
void add(const float* from, const float* other, float* to, int64_t vectors) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < vectors; ++i) {
    store(to + i * kLanes<float>, load(from + i * kLanes<float>) + load(other + i * kLanes<float>));
  }
  asm volatile("" : : : "memory");
}

constexpr int64_t kBytesPerRound = int64_t{1} << 20;  // so that starting a round costs nothing against it

}  // namespace

extern "C" {

int simd_bytes() { return kVectorBytes; }

double fma_flops_float32(int threads, double seconds) { return multiply_add_rate<float>(threads, seconds); }
double fma_flops_float64(int threads, double seconds) { return multiply_add_rate<double>(threads, seconds); }

// Bytes a second, read and written ones added up, of a working set of `bytes` that the threads share out. Kind 0 reads,
// 1 writes, 2 copies, 3 adds two parts of it into a third. Stores go through or past the cache, whichever is faster.
// `memory` begins on a cache line and has `bytes` and 4096 more for each thread.
double bandwidth(char* memory, int kind, int64_t bytes, int threads, double seconds) {
  const int64_t parts = kind < 2 ? 1 : kind;
  const int64_t vectors = bytes / threads / parts / kVectorBytes;  // of a part of a thread
  const int64_t moved = vectors * parts * kVectorBytes;            // by a thread in a pass
  const int64_t passes = std::max<int64_t>(1, kBytesPerRound / std::max<int64_t>(1, moved * threads));
  const int64_t stride = (moved + 4095) / 4096 * 4096;  // threads share no page
  const auto run = [&](auto pass) {
    return shortest_round(threads, seconds, [&](int thread, int64_t) {
      float* const first = reinterpret_cast<float*>(memory + thread * stride);
      for (int64_t i = 0; i < passes; ++i) pass(first, first + vectors * kLanes<float>);
    });
  };
  double time;
  if (kind == 0) {
    time = run([=](float* data, float*) { read(data, vectors); });
  } else if (kind == 1) {
    time = std::min(run([=](float* data, float*) { write<false>(data, vectors); }),
                    run([=](float* data, float*) { write<true>(data, vectors); }));
  } else if (kind == 2) {
    time = std::min(run([=](float* data, float* next) { copy<false>(data, next, vectors); }),
                    run([=](float* data, float* next) { copy<true>(data, next, vectors); }));
  } else {
    time = run([=](float* data, float* next) { add(data, next, next + vectors * kLanes<float>, vectors); });
  }
  return static_cast<double>(moved * threads * passes) / time;
}
}
