// Vectors, transpositions, logarithms of products and lane groups; built once for each instruction set.

#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "common/lanes.h"
#include "common/log_product.h"
#include "common/scratch.h"

namespace {

using namespace cvf::CVF_ISA;

template <class T>
Vec<T> iota(T start) {
  Vec<T> v{};
  for (int lane = 0; lane < kLanes<T>; ++lane) v[lane] = start + static_cast<T>(lane);
  return v;
}

template <class T>
void test_transpose() {
  constexpr int n = kLanes<T>;
  Vec<T> rows[n];
  for (int r = 0; r < n; ++r) rows[r] = iota<T>(static_cast<T>(100 * r));
  transpose<T>(rows);
  for (int r = 0; r < n; ++r) {
    for (int lane = 0; lane < n; ++lane) CHECK(rows[r][lane] == static_cast<T>(100 * lane + r));
  }
}

template <class T>
void test_sums() {
  constexpr int n = kLanes<T>;
  Vec<T> rows[n];
  T expected[n];
  for (int r = 0; r < n; ++r) {
    rows[r] = iota<T>(static_cast<T>(r * r));
    expected[r] = static_cast<T>(n * r * r + n * (n - 1) / 2);
    CHECK(sum_lanes<T>(rows[r]) == expected[r]);
  }
  const Vec<T> sums = sum_rows<T>(rows);
  for (int r = 0; r < n; ++r) CHECK(sums[r] == expected[r]);
}

template <class T>
void test_partial() {
  constexpr int n = kLanes<T>;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (int count = -1; count <= n + 1; ++count) {
    const Vec<T> kept = keep_first<T>(Vec<T>{} + nan, count);
    for (int lane = 0; lane < n; ++lane) CHECK(lane < count ? std::isnan(kept[lane]) : kept[lane] == T(0));
  }
  // Of exact size: one element too many would be seen by the address sanitizer, or in the guards.
  for (int count = 0; count <= n; ++count) {
    const std::vector<T> source(static_cast<size_t>(count), T(3));
    const Vec<T> loaded = load_partial(source.data(), count);
    for (int lane = 0; lane < n; ++lane) CHECK(loaded[lane] == (lane < count ? T(3) : T(0)));
    std::vector<T> target(static_cast<size_t>(count) + 2, T(-1));
    store_partial<T>(target.data() + 1, loaded, count);
    CHECK(target.front() == T(-1) && target.back() == T(-1));
    CHECK(std::vector<T>(target.begin() + 1, target.end() - 1) == source);
  }
  // Counts beyond a vector's ends, and memory that goes on, or not.
  std::vector<T> row(static_cast<size_t>(n), nan);
  row[0] = T(5);
  CHECK(load_first(row.data(), 1, row.data() + n)[0] == T(5) && load_first(row.data(), 1, row.data() + 1)[0] == T(5));
  for (const int64_t count : {int64_t{-3}, int64_t{0}, int64_t{1}, int64_t{n + 5}}) {
    const Vec<T> loaded = load_first(row.data(), count, row.data() + n);
    for (int lane = 1; lane < n; ++lane) CHECK(lane < count ? std::isnan(loaded[lane]) : loaded[lane] == T(0));
    std::vector<T> target(static_cast<size_t>(n) + 2, T(-1));
    store_partial<T>(target.data() + 1, Vec<T>{} + T(3), count);
    for (int k = 0; k < n + 2; ++k)
      CHECK(target[static_cast<size_t>(k)] == (k > 0 && k <= std::min<int64_t>(count, n) ? T(3) : T(-1)));
  }
}

template <class T>
void test_log_product() {
  const T infinity = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const T tiny = std::numeric_limits<T>::denorm_min();
  const std::vector<std::vector<T>> cases = {
      {T(1)},
      {T(2), T(0.5), T(3)},
      {T(1e-30), T(1e-30), T(1e-30), T(1e-30)},
      {T(1e30), T(1e30), T(1e30), T(1e30)},
      {tiny, T(1), tiny * T(1000)},
      {T(0), T(2)},
      {infinity, T(2)},
      {infinity, T(0)},
      {T(-1), T(-1)},
      {nan, T(1)},
      std::vector<T>(1000, std::numeric_limits<T>::max()),
      std::vector<T>(1000, T(1.9999)),
  };
  for (const auto& factors : cases) {
    long double expected = 0;
    LogProduct<T> product;
    for (const T factor : factors) {
      expected += std::log(static_cast<long double>(factor));
      product.multiply(Vec<T>{} + factor);
    }
    const double tolerance = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      CHECK(cvf::test::close(product.log(lane), static_cast<double>(expected), tolerance,
                             static_cast<double>(factors.size())));
    }
    CHECK(cvf::test::close(product.log(), static_cast<double>(expected) * kLanes<T>, tolerance,
                           static_cast<double>(factors.size() * kLanes<T>)));
  }
  // Lanes do not mix.
  LogProduct<T> product;
  Vec<T> factors = iota<T>(T(1));
  factors[0] = T(-1);
  product.multiply(factors);
  CHECK(std::isnan(product.log(0)));
  for (int lane = 1; lane < kLanes<T>; ++lane) CHECK(cvf::test::close(product.log(lane), std::log(lane + 1.0), 1e-6));
  CHECK(std::isnan(product.log()));
}

template <class T>
void test_lane_groups() {
  const int64_t n = kLanes<T>;
  for (int64_t length : {int64_t{1}, int64_t{2}, n - 1, n, n + 1, 2 * n, 2 * n + 3}) {
    for (int64_t batch : {int64_t{1}, n - 1, n, n + 1, 2 * n + 1}) {
      if (length < 1 || batch < 1) continue;
      std::vector<T> source(static_cast<size_t>(batch * length)), target(source.size(), T(-1));
      for (size_t k = 0; k < source.size(); ++k) source[k] = static_cast<T>(k);
      const cvf::Batched<T> rows{source.data(), length};
      Scratch<Vec<T>> lanes(length);
      for (int64_t first = 0; first < batch; first += n) {
        const LaneGroup group{first, std::min(n, batch - first)};
        gather_lanes(rows, group, length, rows.end(batch, length), lanes.data());
        for (int64_t k = 0; k < length; ++k) {
          for (int64_t lane = 0; lane < n; ++lane) CHECK(lanes[k][lane] == rows[group.sample(lane)][k]);
        }
        scatter_lanes<T>(lanes.data(), group, length, target.data());
      }
      CHECK(source == target);
    }
  }
}

template <class T>
void test_all() {
  test_transpose<T>();
  test_sums<T>();
  test_partial<T>();
  test_log_product<T>();
  test_lane_groups<T>();
}

}  // namespace

int run_test();  // called by each_isa.cpp

int run_test() {
  test_all<float>();
  test_all<double>();
  return cvf::test::report("lanes for " CVF_TEST_ISA);
}
