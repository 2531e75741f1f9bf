// The kernels of propagate against the recurrence and its adjoint, written down once more in double.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/propagate/propagate.h"

namespace {

struct Shape {
  int64_t batch, d;
  bool shared_jac, shared_offset;

  int64_t matrices() const { return shared_jac ? 1 : batch; }
};

template <class T>
struct Tensors {
  std::vector<T> jac, offset, log_sigma, upstream_loc, upstream_scale_tril;
};

template <class T>
struct Results {
  std::vector<T> loc, scale_tril, jac, offset, log_sigma;
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  std::normal_distribution<double> normal;
  const auto draw = [&](int64_t count, double scale) {
    std::vector<T> values(static_cast<size_t>(count));
    for (T& value : values) value = static_cast<T>(scale * normal(random));
    return values;
  };
  const double scale = 1 / std::sqrt(static_cast<double>(s.d));
  Tensors<T> t;
  t.jac = draw(s.matrices() * s.d * s.d, scale);
  t.offset = draw((s.shared_offset ? 1 : s.batch) * s.d, 1);
  t.log_sigma = draw(s.d, 0.3);
  t.upstream_loc = draw(s.batch * s.d, 1);
  t.upstream_scale_tril = draw(s.matrices() * s.d * s.d, 1);
  // NaN where nothing may be used.
  for (size_t k = 0; k < t.jac.size(); ++k) {
    const int64_t row = static_cast<int64_t>(k) / s.d % s.d, column = static_cast<int64_t>(k) % s.d;
    if (column >= row) t.jac[k] = std::numeric_limits<T>::quiet_NaN();
    if (column > row) t.upstream_scale_tril[k] = std::numeric_limits<T>::quiet_NaN();
  }
  return t;
}

// x := W^-1 x or W^-T x for one column x, with W = I - A and A (d, d) at `jac`.
template <class T>
void solve(const T* jac, int64_t d, std::vector<double>& x, bool transposed) {
  const auto at = [&](int64_t i, int64_t j) { return static_cast<double>(jac[i * d + j]); };
  for (int64_t step = 0; step < d; ++step) {
    const int64_t i = transposed ? d - 1 - step : step;
    for (int64_t j = 0; j < d; ++j) {
      if (transposed ? j > i : j < i) {
        x[static_cast<size_t>(i)] += (transposed ? at(j, i) : at(i, j)) * x[static_cast<size_t>(j)];
      }
    }
  }
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t) {
  const int64_t d = s.d, square = d * d;
  const auto index = [](int64_t k) { return static_cast<size_t>(k); };
  Results<double> out{std::vector<double>(t.upstream_loc.size()), std::vector<double>(t.jac.size()),
                      std::vector<double>(t.jac.size()), std::vector<double>(t.offset.size()),
                      std::vector<double>(t.log_sigma.size())};
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t matrix = s.shared_jac ? 0 : b * square, offset = s.shared_offset ? 0 : b * d;
    std::vector<double> loc(index(d)), adjoint(index(d));
    for (int64_t i = 0; i < d; ++i) {
      loc[index(i)] = static_cast<double>(t.offset[index(offset + i)]);
      adjoint[index(i)] = static_cast<double>(t.upstream_loc[index(b * d + i)]);
    }
    solve(&t.jac[index(matrix)], d, loc, false);
    solve(&t.jac[index(matrix)], d, adjoint, true);
    for (int64_t i = 0; i < d; ++i) {
      out.loc[index(b * d + i)] = loc[index(i)];
      out.offset[index(offset + i)] += adjoint[index(i)];
      for (int64_t j = 0; j < i; ++j) out.jac[index(matrix + i * d + j)] += adjoint[index(i)] * loc[index(j)];
    }
  }
  for (int64_t m = 0; m < s.matrices(); ++m) {
    for (int64_t k = 0; k < d; ++k) {
      std::vector<double> column(index(d)), adjoint(index(d));
      const double sigma = std::exp(static_cast<double>(t.log_sigma[index(k)]));
      column[index(k)] = sigma;
      for (int64_t i = k; i < d; ++i) {
        adjoint[index(i)] = static_cast<double>(t.upstream_scale_tril[index(m * square + i * d + k)]);
      }
      solve(&t.jac[index(m * square)], d, column, false);
      solve(&t.jac[index(m * square)], d, adjoint, true);
      out.log_sigma[index(k)] += sigma * adjoint[index(k)];
      for (int64_t i = 0; i < d; ++i) {
        out.scale_tril[index(m * square + i * d + k)] = column[index(i)];
        for (int64_t j = 0; j < i; ++j) out.jac[index(m * square + i * d + j)] += adjoint[index(i)] * column[index(j)];
      }
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.upstream_loc), like(t.jac), like(t.jac), like(t.offset), like(t.log_sigma)};
  const int64_t square = s.d * s.d;

  cvf::propagate::Forward<T> forward;
  forward.batch = s.batch;
  forward.d = s.d;
  forward.jac = {t.jac.data(), s.shared_jac ? 0 : square};
  forward.offset = {t.offset.data(), s.shared_offset ? 0 : s.d};
  forward.log_sigma = t.log_sigma.data();
  forward.shared_jac = s.shared_jac;
  forward.loc = out.loc.data();
  forward.scale_tril = out.scale_tril.data();
  cvf::propagate::forward(forward, threads, isa);

  cvf::propagate::Backward<T> backward;
  backward.batch = s.batch;
  backward.d = s.d;
  backward.jac = forward.jac;
  backward.log_sigma = forward.log_sigma;
  backward.loc = {out.loc.data(), s.d};
  backward.scale_tril = {out.scale_tril.data(), s.shared_jac ? 0 : square};
  backward.upstream_loc = {t.upstream_loc.data(), s.d};
  backward.upstream_scale_tril = {t.upstream_scale_tril.data(), s.shared_jac ? 0 : square};
  backward.shared_jac = s.shared_jac;
  backward.shared_offset = s.shared_offset;
  backward.grad_jac = out.jac.data();
  backward.grad_offset = out.offset.data();
  backward.grad_log_sigma = out.log_sigma.data();
  cvf::propagate::backward(backward, threads, isa);
  return out;
}

template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth) {
  cvf::test::compare(actual, truth, 100);
}

template <class T>
void test_type(std::mt19937& random) {
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 64, 100}) {
    for (const int64_t batch : {0, 1, 17, 40}) {
      for (const int flags : {0, 1, 2, 3}) {
        const Shape shape{batch, d, (flags & 1) != 0, (flags & 2) != 0};
        if (flags == 3 && batch != 1) continue;  // nothing has a batch
        const Tensors<T> tensors = random_tensors<T>(shape, random);
        const Results<double> truth = expected(shape, tensors);
        for (const cvf::Isa isa : cvf::kAllIsas) {
          if (!cvf::isa_available(isa)) continue;
          for (const int threads : {1, 3}) {
            const Results<T> results = run(shape, tensors, threads, isa);
            compare(results.loc, truth.loc);
            compare(results.scale_tril, truth.scale_tril);
            compare(results.jac, truth.jac);
            compare(results.offset, truth.offset);
            compare(results.log_sigma, truth.log_sigma);
          }
        }
      }
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  return cvf::test::report("propagate");
}
