// CUDA kernels as functions of the CPU: g++ compiles their sources, and the threads of a block are fibers.
//
// One thread runs at a time, until it waits at a barrier of its block or warp. `schedule` says who goes on first: a
// kernel that needs a barrier which is not there gives different results in different orders. Shared memory is
// allocated to sixteen bytes and full of NaN. A block whose threads wait for ever ends the program.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cvf::cuda {

// Hears what is launched, and when threads have met: for tools that count. Tests have none.
struct Observer {
  virtual ~Observer() = default;
  virtual void launch(const void* kernel, dim3 grid, int threads, size_t shared_bytes) = 0;
  virtual void block_begins(const void* shared) = 0;
  virtual void block_ends() = 0;
  virtual void met(int warp) = 0;  // -1: all threads of the block
};

inline Observer* observer = nullptr;

class Block {
 public:
  static constexpr int kLanes = 32, kMostThreads = 1024, kMostSlotBytes = 32;
  static constexpr size_t kStackBytes = 32 * 1024;

  enum class Schedule { kForward, kBackward };
  static inline Schedule schedule = Schedule::kForward;
  static inline int64_t first_block = 0;  // of a grid's x: those before it are left out
  static inline Block* current = nullptr;

  Block(int threads, size_t shared_bytes, const std::function<void()>& body)
      : body_(body), fibers_(static_cast<size_t>(threads)), warps_(static_cast<size_t>((threads + 31) / 32)) {
    if (threads < 1 || threads > kMostThreads) fail("a block of a size that there is not");
    // Aligned as on the device; what is past the end is an error that the address sanitizer sees.
    shared_.reset(static_cast<unsigned char*>(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16)));
    std::memset(shared_.get(), 0xff, shared_bytes);
    all_.alive = threads;
    for (int k = 0; k < threads; ++k) ++warps_[static_cast<size_t>(k / kLanes)].barrier.alive;
  }

  void run() {
    current = this;
    if (observer != nullptr) observer->block_begins(shared_.get());
    const int count = static_cast<int>(fibers_.size());
    for (int k = 0; k < count; ++k) prepare(k);
    for (int alive = count; alive > 0;) {
      bool moved = false;
      for (int step = 0; step < count; ++step) {
        const int k = schedule == Schedule::kForward ? step : count - 1 - step;
        Fiber& fiber = fibers_[static_cast<size_t>(k)];
        if (fiber.done || (fiber.waits_at != nullptr && fiber.waits_at->generation == fiber.generation)) continue;
        moved = true;
        resume(k);
        if (fiber.done) --alive;
      }
      if (!moved) fail("threads wait for others that never come");
    }
    if (observer != nullptr) observer->block_ends();
    current = nullptr;
  }

  void synchronize_block() { wait(all_); }
  void synchronize_warp() { wait(warp().barrier); }
  void* shared() { return shared_.get(); }

  // Each lane gives a value and takes that of another, all at once.
  template <class T>
  T exchange(T value, int source) {
    static_assert(sizeof(T) <= kMostSlotBytes);
    Warp& mine = warp();
    auto& slots = mine.slots[mine.barrier.generation & 1];
    std::memcpy(slots[lane()], &value, sizeof(T));
    wait(mine.barrier);
    std::memcpy(&value, slots[source], sizeof(T));
    return value;
  }

  int lane() const { return running_ % kLanes; }

 private:
  struct Barrier {
    int alive = 0, waiting = 0;
    uint64_t generation = 0;

    void release_if_complete() {
      if (waiting < alive || waiting == 0) return;
      waiting = 0;
      ++generation;
    }
  };

  struct Warp {
    Barrier barrier;
    unsigned char slots[2][kLanes][kMostSlotBytes];
  };

  struct Fiber {
    ucontext_t context;
    const Barrier* waits_at = nullptr;
    uint64_t generation = 0;
    bool done = false;
    void* fake_stack = nullptr;
  };

  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };

  static unsigned char* stack(int k) {
    static std::vector<std::unique_ptr<unsigned char[]>> stacks(kMostThreads);
    auto& found = stacks[static_cast<size_t>(k)];
    if (!found) found = std::make_unique<unsigned char[]>(kStackBytes);
    return found.get();
  }

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "cuda_on_cpu: %s\n", what);
    std::abort();
  }

  Warp& warp() { return warps_[static_cast<size_t>(running_ / kLanes)]; }

  void prepare(int k) {
    Fiber& fiber = fibers_[static_cast<size_t>(k)];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack(k);
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::enter, 0);
  }

  static void enter() {
    Block* const block = current;
    __sanitizer_finish_switch_fiber(nullptr, &block->main_stack_, &block->main_stack_bytes_);
    block->body_();
    Fiber& fiber = block->fibers_[static_cast<size_t>(block->running_)];
    fiber.done = true;
    --block->all_.alive;
    --block->warp().barrier.alive;
    block->all_.release_if_complete();
    block->warp().barrier.release_if_complete();
    __sanitizer_start_switch_fiber(nullptr, block->main_stack_, block->main_stack_bytes_);
    setcontext(&block->main_);
  }

  void resume(int k) {
    Fiber& fiber = fibers_[static_cast<size_t>(k)];
    running_ = k;
    threadIdx = dim3{static_cast<unsigned>(k)};
    __sanitizer_start_switch_fiber(&main_fake_stack_, stack(k), kStackBytes);
    swapcontext(&main_, &fiber.context);
    __sanitizer_finish_switch_fiber(main_fake_stack_, nullptr, nullptr);
  }

  void wait(Barrier& barrier) {
    const uint64_t generation = barrier.generation;
    ++barrier.waiting;
    barrier.release_if_complete();
    if (barrier.generation != generation) {
      if (observer != nullptr) observer->met(&barrier == &all_ ? -1 : running_ / kLanes);
      return;
    }
    Fiber& fiber = fibers_[static_cast<size_t>(running_)];
    fiber.waits_at = &barrier;
    fiber.generation = generation;
    __sanitizer_start_switch_fiber(&fiber.fake_stack, main_stack_, main_stack_bytes_);
    swapcontext(&fiber.context, &main_);
    __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
    fiber.waits_at = nullptr;
  }

  std::function<void()> body_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::unique_ptr<unsigned char, Free> shared_;
  Barrier all_;
  int running_ = 0;
  ucontext_t main_;
  const void* main_stack_ = nullptr;
  size_t main_stack_bytes_ = 0;
  void* main_fake_stack_ = nullptr;
};

struct DeviceGuard {
  explicit DeviceGuard(const Place&) {}
};

template <class... Parameters, class... Arguments>
void launch(const Place&, void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            const Arguments&... arguments) {
  if (observer != nullptr) observer->launch(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes);
  gridDim = grid;
  blockDim = dim3{static_cast<unsigned>(threads)};
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = static_cast<unsigned>(Block::first_block); x < grid.x; ++x) {
      blockIdx = dim3{x, y};
      Block(threads, shared_bytes, [&] { kernel(arguments...); }).run();
    }
  }
}

template <class T>
T* shared_memory() {
  return static_cast<T*>(Block::current->shared());
}

}  // namespace cvf::cuda

inline void __syncthreads() { cvf::cuda::Block::current->synchronize_block(); }
inline void __syncwarp() { cvf::cuda::Block::current->synchronize_warp(); }

template <class T>
T __shfl_sync(unsigned, T value, int source, int width = 32) {
  cvf::cuda::Block& block = *cvf::cuda::Block::current;
  return block.exchange(value, block.lane() / width * width + source % width);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  cvf::cuda::Block& block = *cvf::cuda::Block::current;
  return block.exchange(value, block.lane() ^ mask);
}
