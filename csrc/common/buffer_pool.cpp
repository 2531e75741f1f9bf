#include "common/buffer_pool.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace cvf {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallest = size_t{32} << 10;     // what malloc keeps in its heap, whose top it gives back
constexpr size_t kMostCached = size_t{512} << 20;  // of all buffers together

struct Block {
  void* data;
  size_t bytes;
};

struct Pool {
  std::mutex mutex;
  std::vector<Block> free;        // oldest first
  std::atomic<size_t> bytes = 0;  // what they take, together
};

// Never destroyed: tensors may outlive static objects.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

size_t round_up(size_t bytes, size_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

// Bytes of a buffer of so many: whole lines, or whole huge pages.
size_t allocated(size_t bytes) {
  return round_up(std::max<size_t>(bytes, 1), bytes >= kHugePage ? kHugePage : kCacheLine);
}

void* allocate(size_t bytes) {
  const bool huge = bytes >= kHugePage;
  void* data = std::aligned_alloc(huge ? kHugePage : kCacheLine, allocated(bytes));
  if (data == nullptr) throw std::bad_alloc();
#ifdef __linux__
  if (huge) madvise(data, allocated(bytes), MADV_HUGEPAGE);
#endif
  return data;
}

}  // namespace

// The lock is only tried: whoever does not get it goes to malloc. So a child that was forked while another thread
// held it cannot hang.
void* acquire_buffer(size_t bytes) {
  if (bytes >= kSmallest) {
    Pool& p = pool();
    const std::unique_lock lock(p.mutex, std::try_to_lock);
    if (lock) {
      for (size_t i = p.free.size(); i-- > 0;) {
        if (p.free[i].bytes == bytes) {
          void* data = p.free[i].data;
          p.free.erase(p.free.begin() + static_cast<std::ptrdiff_t>(i));
          p.bytes -= allocated(bytes);
          return data;
        }
      }
    }
  }
  return allocate(bytes);
}

void release_buffer(void* buffer, size_t bytes) noexcept {
  if (buffer == nullptr) return;
  const size_t size = allocated(bytes);
  if (bytes >= kSmallest && size <= kMostCached) {
    Pool& p = pool();
    const std::unique_lock lock(p.mutex, std::try_to_lock);
    if (lock) {
      size_t evicted = 0;
      while (p.bytes + size > kMostCached) {
        p.bytes -= allocated(p.free[evicted].bytes);
        std::free(p.free[evicted++].data);
      }
      p.free.erase(p.free.begin(), p.free.begin() + static_cast<std::ptrdiff_t>(evicted));
      try {
        p.free.push_back({buffer, bytes});
        p.bytes += size;
        return;
      } catch (const std::bad_alloc&) {
        // No room to remember it: it goes back to the system.
      }
    }
  }
  std::free(buffer);
}

namespace {

// What small calls work in: a stack, so that none of them goes to malloc a dozen times.
class Stack {
 public:
  ~Stack() { std::free(data_); }

  void* push(size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    return nullptr;  // where one buffer ends and the next begins is for the sanitizer to see
#endif
    if (data_ == nullptr) data_ = static_cast<char*>(std::aligned_alloc(kCacheLine, kStackBytes));
    // One line more, so that buffers whose size is a power of two do not compete for the same lines of the cache.
    const size_t needed = round_up(bytes, kCacheLine) + kCacheLine;
    if (data_ == nullptr || needed > kStackBytes - used_) return nullptr;
    void* top = data_ + used_;
    used_ += needed;
    return top;
  }

  // False if the buffer is none of the stack's.
  bool pop(void* buffer) {
    char* place = static_cast<char*>(buffer);
    if (data_ == nullptr || std::less<char*>{}(place, data_) || !std::less<char*>{}(place, data_ + kStackBytes))
      return false;
    used_ = static_cast<size_t>(place - data_);
    return true;
  }

 private:
  static constexpr size_t kStackBytes = size_t{128} << 10;
  char* data_ = nullptr;
  size_t used_ = 0;
};

thread_local Stack stack;

// Rounded up to eight sizes in each power of two. Working memory that grows a little from one use to the next then
// finds the buffer of the last one; with each size kept for itself the pool would fill up.
size_t size_class(size_t bytes) { return bytes < 16 ? bytes : round_up(bytes, std::bit_floor(bytes) / 8); }

}  // namespace

void* acquire_scratch(size_t bytes) {
  void* buffer = stack.push(bytes);
  return buffer != nullptr ? buffer : acquire_buffer(size_class(bytes));
}

void release_scratch(void* buffer, size_t bytes) noexcept {
  if (!stack.pop(buffer)) release_buffer(buffer, size_class(bytes));
}

size_t cached_bytes() { return pool().bytes; }

void release_cached_buffers() {
  const std::unique_lock lock(pool().mutex, std::try_to_lock);
  if (!lock) return;
  for (const Block& block : pool().free) std::free(block.data);
  pool().free.clear();
  pool().bytes = 0;
}

}  // namespace cvf
