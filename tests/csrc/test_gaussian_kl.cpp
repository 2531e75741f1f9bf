// The kernels of gaussian_kl against the textbook formula with inverse covariance matrices, in double.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/gaussian_kl/gaussian_kl.h"

namespace {

struct Shape {
  int64_t batch, d;
  bool covariance_q, covariance_p, shared_loc, shared_matrix;
};

template <class T>
struct Tensors {
  std::vector<T> loc_q, loc_p, matrix_q, matrix_p, upstream;
};

template <class T>
struct Results {
  std::vector<T> value, loc_q, loc_p, matrix_q, matrix_p;
};

// A square matrix in double.
struct Matrix {
  explicit Matrix(int64_t d) : d(d), data(static_cast<size_t>(d * d)) {}
  double& operator()(int64_t i, int64_t j) { return data[static_cast<size_t>(i * d + j)]; }
  double operator()(int64_t i, int64_t j) const { return data[static_cast<size_t>(i * d + j)]; }
  double* row(int64_t i) { return data.data() + i * d; }
  const double* row(int64_t i) const { return data.data() + i * d; }

  int64_t d;
  std::vector<double> data;
};

// y += a x. Most of the time of this test goes here: the truth needs no watching by the sanitizers.
[[gnu::no_sanitize_address, gnu::no_sanitize_undefined]]
void add_multiple(double a, const double* x, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

Matrix times(const Matrix& a, const Matrix& b) {
  Matrix out(a.d);
  for (int64_t i = 0; i < a.d; ++i) {
    for (int64_t k = 0; k < a.d; ++k) add_multiple(a(i, k), b.row(k), a.d, out.row(i));
  }
  return out;
}

Matrix square(const Matrix& L) {  // L L^T
  Matrix transposed(L.d);
  for (int64_t i = 0; i < L.d; ++i) {
    for (int64_t j = 0; j <= i; ++j) transposed(j, i) = L(i, j);
  }
  return times(L, transposed);
}

// By elimination without pivoting, which suits positive definite matrices.
Matrix inverse(Matrix a) {
  Matrix out(a.d);
  for (int64_t i = 0; i < a.d; ++i) out(i, i) = 1;
  for (int64_t p = 0; p < a.d; ++p) {
    const double pivot = a(p, p);
    for (int64_t j = 0; j < a.d; ++j) {
      a(p, j) /= pivot;
      out(p, j) /= pivot;
    }
    for (int64_t i = 0; i < a.d; ++i) {
      const double factor = a(i, p);
      if (i == p || factor == 0) continue;
      add_multiple(-factor, a.row(p), a.d, a.row(i));
      add_multiple(-factor, out.row(p), a.d, out.row(i));
    }
  }
  return out;
}

// A factor, and what the op is given: the factor or its square, with NaN where nothing may be used.
Matrix random_factor(int64_t d, std::mt19937& random) {
  std::normal_distribution<double> normal;
  Matrix L(d);
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t j = 0; j < i; ++j) L(i, j) = 0.3 * normal(random) / std::sqrt(static_cast<double>(d));
    L(i, i) = std::exp(0.2 * normal(random));
  }
  return L;
}

template <class T>
void append(const Matrix& L, bool covariance, std::vector<T>& out) {
  const Matrix given = covariance ? square(L) : L;
  for (int64_t i = 0; i < L.d; ++i) {
    for (int64_t j = 0; j < L.d; ++j) {
      out.push_back(j <= i ? static_cast<T>(given(i, j)) : std::numeric_limits<T>::quiet_NaN());
    }
  }
}

template <class T>
std::vector<T> draw(int64_t count, std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(normal(random));
  return values;
}

template <class T>
Results<double> make(const Shape& s, Tensors<T>& t, std::mt19937& random) {
  const int64_t d = s.d;
  t.loc_q = draw<T>(s.batch * d, random);
  t.loc_p = draw<T>(s.shared_loc ? d : s.batch * d, random);
  t.upstream = draw<T>(s.batch, random);
  Results<double> out{{}, std::vector<double>(t.loc_q.size()), std::vector<double>(t.loc_p.size()), {}, {}};
  out.matrix_p.resize(static_cast<size_t>((s.shared_matrix ? 1 : s.batch) * d * d));
  Matrix L_p = random_factor(d, random);
  for (int64_t b = 0; b < s.batch; ++b) {
    const Matrix L_q = random_factor(d, random);
    if (b > 0 && !s.shared_matrix) L_p = random_factor(d, random);
    append(L_q, s.covariance_q, t.matrix_q);
    if (b == 0 || !s.shared_matrix) append(L_p, s.covariance_p, t.matrix_p);

    const double g = static_cast<double>(t.upstream[static_cast<size_t>(b)]);
    std::vector<double> delta(static_cast<size_t>(d));
    const int64_t offset_p = s.shared_loc ? 0 : b * d;
    for (int64_t i = 0; i < d; ++i) {
      delta[static_cast<size_t>(i)] = static_cast<double>(t.loc_q[static_cast<size_t>(b * d + i)]) -
                                      static_cast<double>(t.loc_p[static_cast<size_t>(offset_p + i)]);
    }
    Matrix second = square(L_q);  // of q around the mean of p
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j < d; ++j) second(i, j) += delta[static_cast<size_t>(i)] * delta[static_cast<size_t>(j)];
    }
    const Matrix precision_q = inverse(square(L_q)), precision_p = inverse(square(L_p));
    const Matrix product = times(precision_p, second), quadratic = times(product, precision_p);
    double value = 0;
    Matrix grad_q(d), grad_p(d);
    for (int64_t i = 0; i < d; ++i) {
      value += 0.5 * (product(i, i) - 1) + std::log(L_p(i, i)) - std::log(L_q(i, i));
      for (int64_t j = 0; j < d; ++j) {
        grad_q(i, j) = 0.5 * g * (precision_p(i, j) - precision_q(i, j));
        grad_p(i, j) = 0.5 * g * (precision_p(i, j) - quadratic(i, j));
        const double step = g * precision_p(i, j) * delta[static_cast<size_t>(j)];
        out.loc_q[static_cast<size_t>(b * d + i)] += step;
        out.loc_p[static_cast<size_t>(offset_p + i)] -= step;
      }
    }
    out.value.push_back(value);
    // Through L L^T: 2 G L, on and below the diagonal.
    const Matrix chain_q = times(grad_q, L_q), chain_p = times(grad_p, L_p);
    const int64_t matrix_p = s.shared_matrix ? 0 : b * d * d;
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j < d; ++j) {
        out.matrix_q.push_back(s.covariance_q ? grad_q(i, j) : (j <= i ? 2 * chain_q(i, j) : 0));
        out.matrix_p[static_cast<size_t>(matrix_p + i * d + j)] +=
            s.covariance_p ? grad_p(i, j) : (j <= i ? 2 * chain_p(i, j) : 0);
      }
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.upstream), like(t.loc_q), like(t.loc_p), like(t.matrix_q), like(t.matrix_p)};
  cvf::gaussian_kl::Arguments<T> args;
  args.batch = s.batch;
  args.d = s.d;
  args.loc_q = {t.loc_q.data(), s.d};
  args.loc_p = {t.loc_p.data(), s.shared_loc ? 0 : s.d};
  args.matrix_q = {t.matrix_q.data(), s.d * s.d};
  args.matrix_p = {t.matrix_p.data(), s.shared_matrix ? 0 : s.d * s.d};
  args.upstream = {t.upstream.data(), 1};
  args.covariance_q = s.covariance_q;
  args.covariance_p = s.covariance_p;
  args.shared_loc_p = s.shared_loc;
  args.shared_matrix_p = s.shared_matrix;
  args.value = out.value.data();
  args.grad_loc_q = out.loc_q.data();
  args.grad_loc_p = out.loc_p.data();
  args.grad_matrix_q = out.matrix_q.data();
  args.grad_matrix_p = out.matrix_p.data();
  cvf::gaussian_kl::run(args, threads, isa);
  return out;
}

template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth) {
  cvf::test::compare(actual, truth, 200);
}

template <class T>
void test_type(std::mt19937& random) {
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 40, 64}) {
    for (const int64_t batch : {1, 16, 17}) {
      for (int flags = 0; flags < 16; ++flags) {
        if (d > 17 && !cvf::test::even(flags)) continue;
        const Shape shape{batch, d, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0};
        Tensors<T> tensors;
        const Results<double> truth = make(shape, tensors, random);
        for (const cvf::Isa isa : cvf::kAllIsas) {
          if (!cvf::isa_available(isa)) continue;
          for (const int threads : {1, 3}) {
            const Results<T> results = run(shape, tensors, threads, isa);
            compare(results.value, truth.value);
            compare(results.loc_q, truth.loc_q);
            compare(results.loc_p, truth.loc_p);
            compare(results.matrix_q, truth.matrix_q);
            compare(results.matrix_p, truth.matrix_p);
          }
        }
      }
    }
  }
}

// A matrix that is not positive definite gives NaN for its sample alone.
void test_not_positive_definite(std::mt19937& random) {
  for (const int64_t d : {1, 5, 40}) {
    Tensors<float> tensors;
    const Shape shape{17, d, true, true, false, false};
    const Results<double> truth = make(shape, tensors, random);
    tensors.matrix_q[static_cast<size_t>(9 * d * d + d * d - 1)] = -1;
    for (const cvf::Isa isa : cvf::kAllIsas) {
      if (!cvf::isa_available(isa)) continue;
      const Results<float> results = run(shape, tensors, 1, isa);
      for (size_t b = 0; b < 17; ++b) {
        CHECK(b == 9 ? std::isnan(results.value[b])
                     : cvf::test::close(static_cast<double>(results.value[b]), truth.value[b], 1e-4));
      }
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  test_not_positive_definite(random);
  return cvf::test::report("gaussian_kl");
}
