// What the tests of CUDA kernels on the CPU share: inputs, the orders in which threads run, and comparisons.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "check.h"
#include "common/cuda/launch.h"

namespace cvf::test {

template <class T>
std::vector<T> draw(std::mt19937& random, int64_t count, double scale) {
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(scale * normal(random));
  return values;
}

// As many elements as another vector has, which are NaN until they are written.
template <class T, class Other>
std::vector<T> like(const std::vector<Other>& other) {
  return std::vector<T>(other.size(), std::numeric_limits<T>::quiet_NaN());
}

template <class T>
std::vector<T> scratch(int64_t elements) {
  return std::vector<T>(static_cast<size_t>(elements), std::numeric_limits<T>::quiet_NaN());
}

inline std::vector<double> to_double(const std::vector<float>& v) { return {v.begin(), v.end()}; }
inline std::vector<double> to_double(const std::vector<double>& v) { return v; }

// NaN on (if `diagonal`) and above the diagonals of matrices (count, d, d), where nothing may be used.
template <class T>
void hide_upper(std::vector<T>& matrices, int64_t d, bool diagonal) {
  for (size_t k = 0; k < matrices.size(); ++k) {
    const int64_t row = static_cast<int64_t>(k) / d % d, column = static_cast<int64_t>(k) % d;
    if (column > row || (diagonal && column == row)) matrices[k] = std::numeric_limits<T>::quiet_NaN();
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// What `run` gives when the threads of a block go on in one order, and, for float, whether it gives the same bits in
// the other.
template <class T, class Run>
auto in_both_orders(Run run, bool& same) {
  using cvf::cuda::Block;
  same = true;
  if constexpr (std::is_same_v<T, double>) return run();
  Block::schedule = Block::Schedule::kBackward;
  const auto other = run();
  Block::schedule = Block::Schedule::kForward;
  auto results = run();
  same = results == other;
  return results;
}

// Addresses for more elements than there is memory: zeros, of which only the pages that are written take any.
template <class T>
class Reserved {
 public:
  explicit Reserved(int64_t elements)
      : bytes_(static_cast<size_t>(elements) * sizeof(T)),
        data_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    CHECK(data_ != MAP_FAILED);
  }
  ~Reserved() { munmap(data_, bytes_); }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

  T* data() const { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

}  // namespace cvf::test
