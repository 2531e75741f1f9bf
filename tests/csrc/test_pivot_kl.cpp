// The kernels of pivot_kl against the formula, written down once more in double and without any blocking.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/pivot_kl/pivot_kl.h"

namespace {

using cvf::test::compare;

using cvf::pivot_kl::Reduction;

struct Shape {
  int64_t batch, pivots, d;
  bool full;
  Reduction reduction;
};

template <class T>
struct Tensors {
  std::vector<T> jac, offset, log_sigma, loc, factor, upstream;
};

template <class T>
struct Results {
  std::vector<T> value, jac, offset, log_sigma, loc, factor;
  std::vector<int64_t> index;
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  std::normal_distribution<double> normal;
  const auto draw = [&](int64_t count, double scale, double shift) {
    std::vector<T> values(static_cast<size_t>(count));
    for (T& value : values) value = static_cast<T>(shift + scale * normal(random));
    return values;
  };
  const double scale = 0.5 / std::sqrt(static_cast<double>(s.d));
  Tensors<T> t;
  t.jac = draw(s.pivots * s.d * s.d, scale, 0);
  t.offset = draw(s.pivots * s.d, 0.5, 0);
  t.log_sigma = draw(s.d, 0.2, 0);
  t.loc = draw(s.batch * s.d, 0.5, 0);
  t.upstream = draw(s.reduction == Reduction::kNone ? s.batch * s.pivots : s.batch, 1, 0);
  t.factor = draw(s.batch * s.d * (s.full ? s.d : 1), scale, 0);
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
      t.factor[k] = static_cast<T>(std::exp(0.3 * normal(random)));
    }
  }
  return t;
}

// One sample and one pivot in double: the divergence and, for a weight, what it adds to all gradients.
template <class T>
struct Pair {
  Pair(const Shape& s, const Tensors<T>& t, int64_t b, int64_t k)
      : s(s), t(t), b(b), k(k), W(square()), L(square()), M(square()), r(static_cast<size_t>(s.d)) {
    const int64_t d = s.d;
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        W[at(i, j)] = i == j ? 1 : -value(t.jac, (k * d + i) * d + j);
        L[at(i, j)] = s.full ? value(t.factor, (b * d + i) * d + j) : (i == j ? value(t.factor, b * d + i) : 0);
      }
    }
    for (int64_t i = 0; i < d; ++i) {
      const double precision = std::exp(-2 * value(t.log_sigma, i));
      double spread = 0;
      r[static_cast<size_t>(i)] = -value(t.offset, k * d + i);
      for (int64_t j = 0; j <= i; ++j) {
        for (int64_t m = j; m <= i; ++m) M[at(i, j)] += W[at(i, m)] * L[at(m, j)];
        spread += M[at(i, j)] * M[at(i, j)];
        r[static_cast<size_t>(i)] += W[at(i, j)] * value(t.loc, b * d + j);
      }
      spread += r[static_cast<size_t>(i)] * r[static_cast<size_t>(i)];
      kl += 0.5 * (precision * spread - 1) + value(t.log_sigma, i) - std::log(L[at(i, i)]);
      scaled.push_back(1 - precision * spread);
    }
  }

  void add(double weight, Results<double>& out) const {
    const int64_t d = s.d;
    for (int64_t i = 0; i < d; ++i) {
      const double precision = weight * std::exp(-2 * value(t.log_sigma, i));
      const double residual = r[static_cast<size_t>(i)];
      out.log_sigma[static_cast<size_t>(i)] += weight * scaled[static_cast<size_t>(i)];
      out.offset[static_cast<size_t>(k * d + i)] -= precision * residual;
      for (int64_t j = 0; j <= i; ++j) {
        out.loc[static_cast<size_t>(b * d + j)] += W[at(i, j)] * precision * residual;
        double inner = 0;
        for (int64_t m = 0; m <= j; ++m) {
          inner += M[at(i, m)] * L[at(j, m)];
          const double term = W[at(i, j)] * precision * M[at(i, m)];
          if (s.full) out.factor[static_cast<size_t>((b * d + j) * d + m)] += term;
          if (!s.full && j == m) out.factor[static_cast<size_t>(b * d + j)] += term;
        }
        if (j < i) {
          out.jac[static_cast<size_t>((k * d + i) * d + j)] -= precision * (inner + residual * value(t.loc, b * d + j));
        }
      }
      out.factor[static_cast<size_t>(s.full ? (b * d + i) * d + i : b * d + i)] -= weight / L[at(i, i)];
    }
  }

  size_t square() const { return static_cast<size_t>(s.d * s.d); }
  size_t at(int64_t i, int64_t j) const { return static_cast<size_t>(i * s.d + j); }
  static double value(const std::vector<T>& v, int64_t i) { return static_cast<double>(v[static_cast<size_t>(i)]); }

  const Shape& s;
  const Tensors<T>& t;
  int64_t b, k;
  double kl = 0;
  std::vector<double> W, L, M, r, scaled;
};

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t) {
  const auto like = [](const std::vector<T>& v) { return std::vector<double>(v.size()); };
  Results<double> out{{}, like(t.jac), like(t.offset), like(t.log_sigma), like(t.loc), like(t.factor), {}};
  for (int64_t b = 0; b < s.batch; ++b) {
    std::vector<Pair<T>> pairs;
    double sum = 0;
    size_t closest = 0;
    for (int64_t k = 0; k < s.pivots; ++k) {
      pairs.emplace_back(s, t, b, k);
      sum += std::exp(-pairs.back().kl);
      if (pairs.back().kl < pairs[closest].kl) closest = static_cast<size_t>(k);
    }
    const double bound = -std::log(sum / static_cast<double>(s.pivots));
    if (s.reduction == Reduction::kMin) out.value.push_back(pairs[closest].kl);
    if (s.reduction == Reduction::kLogsumexp) out.value.push_back(bound);
    out.index.push_back(static_cast<int64_t>(closest));
    for (size_t k = 0; k < pairs.size(); ++k) {
      if (s.reduction == Reduction::kNone) {
        out.value.push_back(pairs[k].kl);
        pairs[k].add(Pair<T>::value(t.upstream, b * s.pivots + static_cast<int64_t>(k)), out);
        continue;
      }
      const double g = Pair<T>::value(t.upstream, b);
      if (s.reduction == Reduction::kLogsumexp) pairs[k].add(g * std::exp(-pairs[k].kl) / sum, out);
      if (s.reduction == Reduction::kMin && k == closest) pairs[k].add(g, out);
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.upstream),
                 like(t.jac),
                 like(t.offset),
                 like(t.log_sigma),
                 like(t.loc),
                 like(t.factor),
                 std::vector<int64_t>(static_cast<size_t>(s.batch), -1)};
  cvf::pivot_kl::Arguments<T> args;
  args.batch = s.batch;
  args.pivots = s.pivots;
  args.d = s.d;
  args.jac = {t.jac.data(), s.d * s.d};
  args.offset = {t.offset.data(), s.d};
  args.log_sigma = t.log_sigma.data();
  args.loc = {t.loc.data(), s.d};
  (s.full ? args.scale_tril : args.scale) = cvf::Batched<T>{t.factor.data(), s.full ? s.d * s.d : s.d};
  args.reduction = s.reduction;
  args.value = out.value.data();
  args.index = out.index.data();
  cvf::pivot_kl::run(args, threads, isa);

  args.upstream = {t.upstream.data(), s.reduction == Reduction::kNone ? s.pivots : 1};
  args.grad_jac = out.jac.data();
  args.grad_offset = out.offset.data();
  args.grad_log_sigma = out.log_sigma.data();
  args.grad_loc = out.loc.data();
  (s.full ? args.grad_scale_tril : args.grad_scale) = out.factor.data();
  cvf::pivot_kl::run(args, threads, isa);
  return out;
}

template <class T>
void test_shape(const Shape& shape, std::mt19937& random) {
  const Tensors<T> tensors = random_tensors<T>(shape, random);
  const Results<double> truth = expected(shape, tensors);
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (!cvf::isa_available(isa)) continue;
    for (const int threads : {1, 3}) {
      const Results<T> results = run(shape, tensors, threads, isa);
      const double factor = shape.reduction == Reduction::kLogsumexp ? 2000 : 200;  // see tests/ops/pivot_inputs.py
      compare(results.value, truth.value, 200);
      compare(results.jac, truth.jac, factor);
      compare(results.offset, truth.offset, factor);
      compare(results.log_sigma, truth.log_sigma, factor);
      compare(results.loc, truth.loc, factor);
      compare(results.factor, truth.factor, factor);
      if (shape.reduction == Reduction::kMin) CHECK(results.index == truth.index);
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33}) {
    for (const int64_t batch : {1, 17}) {
      for (const int64_t pivots : {1, 3, 17}) {
        for (const bool full : {false, true}) {
          for (const Reduction reduction : {Reduction::kNone, Reduction::kMin, Reduction::kLogsumexp}) {
            const Shape shape{batch, pivots, d, full, reduction};
            test_shape<float>(shape, random);
            test_shape<double>(shape, random);
          }
        }
      }
    }
  }
  return cvf::test::report("pivot_kl");
}
