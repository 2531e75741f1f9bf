// The kernels of ancestral_sample against the recurrence and its adjoint, written down once more in double.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/ancestral_sample/ancestral_sample.h"

namespace {

struct Shape {
  int64_t batch, d;
  bool quadratic, shared_jac, shared_mask, shared_values;
};

template <class T>
struct Tensors {
  std::vector<T> noise, jac, quadratic, offset, values, upstream;
  std::vector<uint8_t> mask;
};

template <class T>
struct Results {
  std::vector<T> z, noise, jac, quadratic, offset, values;
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  std::normal_distribution<double> normal;
  const auto draw = [&](int64_t count, double scale) {
    std::vector<T> values(static_cast<size_t>(count));
    for (T& value : values) value = static_cast<T>(scale * normal(random));
    return values;
  };
  const double d = static_cast<double>(s.d);
  const int64_t matrices = s.shared_jac ? 1 : s.batch;
  Tensors<T> t;
  t.noise = draw(s.batch * s.d, 1);
  t.jac = draw(matrices * s.d * s.d, 1 / std::sqrt(d));
  t.quadratic = draw(s.quadratic ? matrices * s.d * s.d : 0, 0.2 / d);
  t.offset = draw(s.d, 1);
  t.values = draw((s.shared_values ? 1 : s.batch) * s.d, 1);
  t.upstream = draw(s.batch * s.d, 1);
  t.mask.resize(static_cast<size_t>((s.shared_mask ? 1 : s.batch) * s.d));
  for (uint8_t& replaced : t.mask) replaced = normal(random) > 0.5 ? 1 : 0;
  // NaN where nothing may be used.
  for (std::vector<T>* matrix : {&t.jac, &t.quadratic}) {
    for (size_t k = 0; k < matrix->size(); ++k) {
      const int64_t row = static_cast<int64_t>(k) / s.d % s.d, column = static_cast<int64_t>(k) % s.d;
      if (column >= row) (*matrix)[k] = std::numeric_limits<T>::quiet_NaN();
    }
  }
  return t;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t) {
  const int64_t d = s.d;
  const auto index = [](int64_t k) { return static_cast<size_t>(k); };
  const auto zeros = [](const std::vector<T>& v) { return std::vector<double>(v.size()); };
  Results<double> out{zeros(t.noise),     zeros(t.noise),  zeros(t.jac),
                      zeros(t.quadratic), zeros(t.offset), zeros(t.values)};
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t matrix = s.shared_jac ? 0 : b * d * d;
    const int64_t mask = s.shared_mask ? 0 : b * d, values = s.shared_values ? 0 : b * d;
    const auto coefficient = [&](const std::vector<T>& m, int64_t i, int64_t j) {
      return m.empty() ? 0.0 : static_cast<double>(m[index(matrix + i * d + j)]);
    };
    std::vector<double> z(index(d)), adjoint(index(d));
    for (int64_t i = 0; i < d; ++i) {
      z[index(i)] = static_cast<double>(t.noise[index(b * d + i)]) + static_cast<double>(t.offset[index(i)]);
      for (int64_t j = 0; j < i; ++j) {
        const double x = z[index(j)];
        z[index(i)] += coefficient(t.jac, i, j) * x + coefficient(t.quadratic, i, j) * x * x;
      }
      if (t.mask[index(mask + i)]) z[index(i)] = static_cast<double>(t.values[index(values + i)]);
      out.z[index(b * d + i)] = z[index(i)];
      adjoint[index(i)] = static_cast<double>(t.upstream[index(b * d + i)]);
    }
    for (int64_t i = d - 1; i >= 0; --i) {
      const double a = adjoint[index(i)];
      if (t.mask[index(mask + i)]) {
        out.values[index(values + i)] += a;
        continue;
      }
      out.noise[index(b * d + i)] = a;
      out.offset[index(i)] += a;
      for (int64_t j = 0; j < i; ++j) {
        const double x = z[index(j)];
        adjoint[index(j)] += a * (coefficient(t.jac, i, j) + 2 * x * coefficient(t.quadratic, i, j));
        out.jac[index(matrix + i * d + j)] += a * x;
        if (s.quadratic) out.quadratic[index(matrix + i * d + j)] += a * x * x;
      }
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.noise), like(t.noise), like(t.jac), like(t.quadratic), like(t.offset), like(t.values)};
  const int64_t d = s.d, square = d * d;

  cvf::ancestral_sample::Forward<T> forward;
  forward.equations.batch = s.batch;
  forward.equations.d = d;
  forward.equations.jac = {t.jac.data(), s.shared_jac ? 0 : square};
  if (s.quadratic) forward.equations.quadratic = {t.quadratic.data(), s.shared_jac ? 0 : square};
  forward.equations.shared_jac = s.shared_jac;
  forward.equations.do_mask = {t.mask.data(), s.shared_mask ? 0 : d};
  forward.noise = {t.noise.data(), d};
  forward.offset = t.offset.data();
  forward.do_values = {t.values.data(), s.shared_values ? 0 : d};
  forward.z = out.z.data();
  cvf::ancestral_sample::forward(forward, threads, isa);

  cvf::ancestral_sample::Backward<T> backward;
  backward.equations = forward.equations;
  backward.z = {out.z.data(), d};
  backward.upstream = {t.upstream.data(), d};
  backward.shared_values = s.shared_values;
  backward.grad_noise = out.noise.data();
  backward.grad_jac = out.jac.data();
  backward.grad_quadratic = s.quadratic ? out.quadratic.data() : nullptr;
  backward.grad_offset = out.offset.data();
  backward.grad_values = out.values.data();
  cvf::ancestral_sample::backward(backward, threads, isa);
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
      for (int flags = 0; flags < 16; ++flags) {
        if (d > 17 && !cvf::test::even(flags)) continue;
        const Shape shape{batch, d, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0};
        const Tensors<T> tensors = random_tensors<T>(shape, random);
        const Results<double> truth = expected(shape, tensors);
        for (const cvf::Isa isa : cvf::kAllIsas) {
          if (!cvf::isa_available(isa)) continue;
          for (const int threads : {1, 3}) {
            const Results<T> results = run(shape, tensors, threads, isa);
            compare(results.z, truth.z);
            compare(results.noise, truth.noise);
            compare(results.jac, truth.jac);
            compare(results.quadratic, truth.quadratic);
            compare(results.offset, truth.offset);
            compare(results.values, truth.values);
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
  return cvf::test::report("ancestral_sample");
}
