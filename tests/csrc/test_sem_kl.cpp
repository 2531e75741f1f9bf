// The kernels of sem_kl against the formula, written down once more in double and without any blocking.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/sem_kl/sem_kl.h"

namespace {

struct Shape {
  int64_t batch, d;
  bool full, shared_jac, shared_offset;
};

template <class T>
struct Tensors {
  std::vector<T> jac, offset, log_sigma, loc, factor, upstream;
};

template <class T>
struct Results {
  std::vector<T> value, jac, offset, log_sigma, loc, factor;
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
  t.jac = draw((s.shared_jac ? 1 : s.batch) * s.d * s.d, scale);
  t.offset = draw((s.shared_offset ? 1 : s.batch) * s.d, 1);
  t.log_sigma = draw(s.d, 0.3);
  t.loc = draw(s.batch * s.d, 1);
  t.upstream = draw(s.batch, 1);
  t.factor = draw(s.batch * s.d * (s.full ? s.d : 1), scale);
  // A positive diagonal, and NaN where nothing may be used.
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const auto poison = [&](std::vector<T>& matrices, int64_t from) {
    for (size_t k = 0; k < matrices.size(); ++k) {
      const int64_t row = static_cast<int64_t>(k) / s.d % s.d, column = static_cast<int64_t>(k) % s.d;
      if (column >= row + from) matrices[k] = nan;
    }
  };
  poison(t.jac, 0);
  if (s.full) poison(t.factor, 1);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < s.d; ++i) {
      const size_t k = static_cast<size_t>(s.full ? (b * s.d + i) * s.d + i : b * s.d + i);
      t.factor[k] = static_cast<T>(std::exp(0.5 * normal(random)));
    }
  }
  return t;
}

// M, r and the gradients as in sem_kl.h, sample by sample.
template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t) {
  const auto at = [](const std::vector<T>& v, int64_t k) { return static_cast<double>(v[static_cast<size_t>(k)]); };
  const int64_t d = s.d, square = d * d;
  Results<double> out{std::vector<double>(static_cast<size_t>(s.batch)),
                      std::vector<double>(t.jac.size()),
                      std::vector<double>(t.offset.size()),
                      std::vector<double>(t.log_sigma.size()),
                      std::vector<double>(t.loc.size()),
                      std::vector<double>(t.factor.size())};
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t jac = s.shared_jac ? 0 : b * square, offset = s.shared_offset ? 0 : b * d;
    std::vector<double> W(static_cast<size_t>(square)), L(W.size()), M(W.size()), r(static_cast<size_t>(d));
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const size_t k = static_cast<size_t>(i * d + j);
        W[k] = i == j ? 1 : -at(t.jac, jac + i * d + j);
        L[k] = s.full ? at(t.factor, b * square + i * d + j) : (i == j ? at(t.factor, b * d + i) : 0);
      }
    }
    const auto product = [&](int64_t i, int64_t k) {
      double sum = 0;
      for (int64_t j = k; j <= i; ++j) sum += W[static_cast<size_t>(i * d + j)] * L[static_cast<size_t>(j * d + k)];
      return sum;
    };
    double value = 0;
    const double g = at(t.upstream, b);
    for (int64_t i = 0; i < d; ++i) {
      const double precision = std::exp(-2 * at(t.log_sigma, i));
      double spread = 0, residual = -at(t.offset, offset + i);
      for (int64_t k = 0; k <= i; ++k) {
        M[static_cast<size_t>(i * d + k)] = product(i, k);
        spread += product(i, k) * product(i, k);
        residual += W[static_cast<size_t>(i * d + k)] * at(t.loc, b * d + k);
      }
      r[static_cast<size_t>(i)] = residual;
      value += 0.5 * (precision * (spread + residual * residual) - 1) + at(t.log_sigma, i) -
               std::log(L[static_cast<size_t>(i * d + i)]);
      out.log_sigma[static_cast<size_t>(i)] += g * (1 - precision * (spread + residual * residual));
      out.offset[static_cast<size_t>(offset + i)] -= g * precision * residual;
      for (int64_t j = 0; j <= i; ++j) {
        const double w = W[static_cast<size_t>(i * d + j)];
        out.loc[static_cast<size_t>(b * d + j)] += g * w * precision * residual;
        double inner = 0;
        for (int64_t k = 0; k <= j; ++k) {
          inner += M[static_cast<size_t>(i * d + k)] * L[static_cast<size_t>(j * d + k)];
          const double term = g * w * precision * M[static_cast<size_t>(i * d + k)];
          if (s.full) out.factor[static_cast<size_t>(b * square + j * d + k)] += term;
          if (!s.full && j == k) out.factor[static_cast<size_t>(b * d + j)] += term;
        }
        if (j < i) {
          out.jac[static_cast<size_t>(jac + i * d + j)] -= g * precision * (inner + residual * at(t.loc, b * d + j));
        }
      }
      const size_t diagonal = static_cast<size_t>(s.full ? b * square + i * d + i : b * d + i);
      out.factor[diagonal] -= g / L[static_cast<size_t>(i * d + i)];
    }
    out.value[static_cast<size_t>(b)] = value;
  }
  return out;
}

// Lower triangles (d, d) one behind the other, packed.
template <class T>
std::vector<T> pack(const std::vector<T>& matrices, int64_t d) {
  std::vector<T> out;
  for (size_t k = 0; k < matrices.size(); ++k) {
    const int64_t row = static_cast<int64_t>(k) / d % d, column = static_cast<int64_t>(k) % d;
    if (column <= row) out.push_back(matrices[k]);
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, bool packed, bool matrices, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.upstream), like(t.jac), like(t.offset), like(t.log_sigma), like(t.loc), like(t.factor)};
  const int64_t square = packed ? s.d * (s.d + 1) / 2 : s.d * s.d;
  cvf::sem_kl::Arguments<T> args;
  args.packed_jac = packed;
  args.packed_scale_tril = packed && s.full;
  args.batch = s.batch;
  args.d = s.d;
  args.jac = {t.jac.data(), s.shared_jac ? 0 : square};
  args.offset = {t.offset.data(), s.shared_offset ? 0 : s.d};
  args.log_sigma = t.log_sigma.data();
  args.loc = {t.loc.data(), s.d};
  args.upstream = {t.upstream.data(), 1};
  args.shared_jac = s.shared_jac;
  args.shared_offset = s.shared_offset;
  args.value = out.value.data();
  args.grad_jac = out.jac.data();
  args.grad_offset = out.offset.data();
  args.grad_log_sigma = out.log_sigma.data();
  args.grad_loc = out.loc.data();
  if (s.full) {
    args.scale_tril = {t.factor.data(), square};
    args.grad_scale_tril = out.factor.data();
  } else {
    args.scale = {t.factor.data(), s.d};
    args.grad_scale = out.factor.data();
  }
  if (!matrices) args.grad_jac = args.grad_scale_tril = nullptr;
  cvf::sem_kl::run(args, threads, isa);
  return out;
}

template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth) {
  cvf::test::compare(actual, truth, 100);
}

template <class T>
void check_vectors(const Results<T>& results, const Results<double>& truth) {
  compare(results.value, truth.value);
  compare(results.offset, truth.offset);
  compare(results.log_sigma, truth.log_sigma);
  compare(results.loc, truth.loc);
}

template <class T>
void check(const Results<T>& results, const Results<double>& truth) {
  check_vectors(results, truth);
  compare(results.jac, truth.jac);
  compare(results.factor, truth.factor);
}

// Inputs, or results, with their triangles packed.
template <class Values>
Values packed(const Shape& s, Values values) {
  values.jac = pack(values.jac, s.d);
  if (s.full) values.factor = pack(values.factor, s.d);
  return values;
}

template <class T>
void test_type(std::mt19937& random) {
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 64, 100}) {
    for (const int64_t batch : {1, 17}) {
      for (int flags = 0; flags < 8; ++flags) {
        if (d > 33 && !cvf::test::even(flags)) continue;
        const Shape shape{batch, d, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
        const Tensors<T> tensors = random_tensors<T>(shape, random);
        const Results<double> truth = expected(shape, tensors);
        for (const cvf::Isa isa : cvf::kAllIsas) {
          if (!cvf::isa_available(isa)) continue;
          for (const int threads : {1, 3}) {
            check(run(shape, tensors, false, true, threads, isa), truth);
            check(run(shape, packed(shape, tensors), true, true, threads, isa), packed(shape, truth));
            check_vectors(run(shape, tensors, false, false, threads, isa), truth);
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
  return cvf::test::report("sem_kl");
}
