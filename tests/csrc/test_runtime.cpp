// The buffer pool, and the loop over the batch with its threads.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "common/buffer_pool.h"
#include "common/parallel.h"

namespace {

constexpr size_t kLarge = size_t{3} << 20;

void test_pool_reuses() {
  cvf::release_cached_buffers();
  void* first = cvf::acquire_buffer(kLarge);
  std::memset(first, 1, kLarge);
  void* second = cvf::acquire_buffer(kLarge);
  CHECK(first != second);
  cvf::release_buffer(first, kLarge);
  CHECK(cvf::cached_bytes() == size_t{4} << 20);  // what it takes: whole huge pages
  void* third = cvf::acquire_buffer(kLarge);
  CHECK(third == first);
  void* other_size = cvf::acquire_buffer(kLarge + 1);
  CHECK(other_size != first && other_size != second);
  cvf::release_buffer(second, kLarge);
  cvf::release_buffer(third, kLarge);
  cvf::release_buffer(other_size, kLarge + 1);
  cvf::release_cached_buffers();
  CHECK(cvf::cached_bytes() == 0);
}

void test_pool_is_bounded() {
  constexpr size_t bytes = size_t{200} << 20;
  std::vector<void*> buffers;
  for (int i = 0; i < 4; ++i) buffers.push_back(cvf::acquire_buffer(bytes));
  for (void* buffer : buffers) cvf::release_buffer(buffer, bytes);
  CHECK(cvf::cached_bytes() == 2 * bytes);
  cvf::release_cached_buffers();
}

void test_pool_with_threads() {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) {
        void* buffer = cvf::acquire_buffer(kLarge);
        std::memset(buffer, t, 64);
        CHECK(static_cast<char*>(buffer)[63] == static_cast<char>(t));
        cvf::release_buffer(buffer, kLarge);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  cvf::release_cached_buffers();
}

void test_every_item_once() {
  for (const int threads : {1, 2, 7}) {
    for (const int64_t items : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{100}}) {
      std::vector<int> visits(static_cast<size_t>(items));
      auto body = [&](int thread, int64_t begin, int64_t end) {
        CHECK(thread < threads && begin < end);
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      };
      cvf::parallel_for(items, threads, body);
      for (const int count : visits) CHECK(count == 1);
    }
  }
}

void test_exceptions_come_out() {
  for (const int threads : {1, 3}) {
    bool caught = false;
    auto body = [](int, int64_t, int64_t) { throw std::runtime_error("from the body"); };
    try {
      cvf::parallel_for(int64_t{10}, threads, body);
    } catch (const std::runtime_error&) {
      caught = true;
    }
    CHECK(caught);
  }
}

void test_policy() {
  CHECK(cvf::threads_for(1000, 100, 8) == 1);  // too little work
  CHECK(cvf::threads_for(1, 1e12, 8) == 1);    // too few pieces
  CHECK(cvf::threads_for(1000, 1e12, 1) == 1);
  if (cvf::has_openmp()) CHECK(cvf::threads_for(1000, 1e12, 8) == 8);
}

void test_fork() {
  auto body = [](int, int64_t, int64_t) {};
  cvf::parallel_for(int64_t{10}, 2, body);
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    const int threads = cvf::threads_for(1000, 1e12, 8);
    cvf::parallel_for(int64_t{10}, threads, body);
    _exit(threads == 1 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// Nested working memory does not overlap, and what is given back is used again.
void test_scratch() {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{100} << 10, size_t{1} << 20}) {
    char* first = static_cast<char*>(cvf::acquire_scratch(bytes));
    std::memset(first, 1, bytes);
    {
      char* second = static_cast<char*>(cvf::acquire_scratch(bytes));
      CHECK(reinterpret_cast<uintptr_t>(second) % 64 == 0);
      CHECK(second + bytes <= first || first + bytes <= second);
      std::memset(second, 2, bytes);
      cvf::release_scratch(second, bytes);
    }
    char* third = static_cast<char*>(cvf::acquire_scratch(bytes));
    std::memset(third, 3, bytes);
    CHECK(std::all_of(first, first + bytes, [](char c) { return c == 1; }));
    cvf::release_scratch(third, bytes);
    cvf::release_scratch(first, bytes);
  }
}

// As the nodes of a model with thousands of them ask for: the pool must not keep a buffer for each size.
void test_growing_scratch() {
  cvf::release_cached_buffers();
  for (size_t bytes = size_t{200} << 10; bytes < size_t{1} << 20; bytes += 256) {
    cvf::release_scratch(cvf::acquire_scratch(bytes), bytes);
  }
  CHECK(cvf::cached_bytes() < size_t{16} << 20);
  cvf::release_cached_buffers();
}

}  // namespace

int main() {
  test_pool_reuses();
  test_pool_is_bounded();
  test_pool_with_threads();
  test_every_item_once();
  test_exceptions_come_out();
  test_policy();
  test_fork();
  test_scratch();
  test_growing_scratch();
  return cvf::test::report("runtime");
}
