// The kernels of mlp_sem_kl against the divergence and its gradients, written down once more in double.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/mlp_sem_kl/mlp_sem_kl.h"

namespace {

namespace mlp = cvf::mlp_sem_kl;
using cvf::Activation;

enum class Posterior { kDiagonal, kFull, kPacked };

struct Shape {
  int64_t batch, d, hidden;
  Activation activation;
  Posterior posterior;
  bool edges_learn;  // otherwise closed edges are skipped

  int64_t row_of_factor(int64_t i) const { return posterior == Posterior::kPacked ? i * (i + 1) / 2 : i * d; }
  int64_t factor_size() const { return posterior == Posterior::kDiagonal ? d : row_of_factor(d); }
};

// Those of the inputs, or of their gradients.
template <class T>
struct Tensors {
  std::vector<T> pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor;
};

template <class T>
struct Results {
  std::vector<T> value;
  Tensors<T> gradients;
};

size_t index(int64_t k) { return static_cast<size_t>(k); }

struct Unit {
  double value, slope, curvature;
};

Unit phi(Activation activation, double x) {
  const double logistic = 1 / (1 + std::exp(-x)), change = logistic * (1 - logistic);
  const double y = std::tanh(x);
  switch (activation) {
    case Activation::kTanh:
      return {y, 1 - y * y, -2 * y * (1 - y * y)};
    case Activation::kSilu:
      return {x * logistic, logistic + x * change, change * (2 + x * (1 - 2 * logistic))};
    case Activation::kSoftplus:
      return {std::log1p(std::exp(x)), logistic, change};
    default:
      return {x > 0 ? x : 0.01 * x, x > 0 ? 1 : 0.01, 0};
  }
}

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  std::normal_distribution<double> normal;
  const auto draw = [&](int64_t count, double scale) {
    std::vector<T> values(index(count));
    for (T& value : values) value = static_cast<T>(scale * normal(random));
    return values;
  };
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const double root = 1 / std::sqrt(static_cast<double>(s.d));
  Tensors<T> t;
  t.pivot = draw(s.batch * s.d, 1);
  t.w_in = draw(s.d * s.hidden * s.d, root);
  t.b_in = draw(s.d * s.hidden, 1);
  t.w_out = draw(s.d * s.hidden, 1 / std::sqrt(static_cast<double>(s.hidden)));
  t.b_out = draw(s.d, 1);
  t.edges = draw(s.d * s.d, 1);
  t.log_sigma = draw(s.d, 0.5);
  t.loc = draw(s.batch * s.d, 1);
  t.factor = draw(s.batch * s.factor_size(), root);
  for (int64_t i = 0; i < s.d; ++i) {
    for (int64_t j = 0; j < i; ++j) {  // whole vectors of closed edges, and single ones
      if (j / 16 % 2 == i % 2 || normal(random) > 1) t.edges[index(i * s.d + j)] = 0;
    }
    for (int64_t j = i; j < s.d; ++j) {  // NaN where nothing may be used
      t.edges[index(i * s.d + j)] = nan;
      for (int64_t k = 0; k < s.hidden; ++k) t.w_in[index((i * s.hidden + k) * s.d + j)] = nan;
    }
    for (int64_t b = 0; b < s.batch; ++b) {
      T* factor = t.factor.data() + b * s.factor_size();
      const T positive = static_cast<T>(std::exp(0.5 * normal(random)));
      if (s.posterior == Posterior::kDiagonal) {
        factor[i] = positive;
        continue;
      }
      factor[s.row_of_factor(i) + i] = positive;
      for (int64_t j = i + 1; s.posterior == Posterior::kFull && j < s.d; ++j) factor[s.row_of_factor(i) + j] = nan;
    }
  }
  return t;
}

template <class T>
std::vector<double> zeros(const std::vector<T>& like) {
  return std::vector<double>(like.size());
}

template <class T>
double at(const std::vector<T>& v, int64_t k) {
  return static_cast<double>(v[index(k)]);
}

// L (d, d) of one sample.
template <class T>
std::vector<double> factor_of(const Shape& s, const Tensors<T>& t, int64_t b) {
  std::vector<double> L(index(s.d * s.d));
  for (int64_t i = 0; i < s.d; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const bool diagonal = s.posterior == Posterior::kDiagonal;
      if (diagonal && j < i) continue;
      L[index(i * s.d + j)] = at(t.factor, b * s.factor_size() + (diagonal ? i : s.row_of_factor(i) + j));
    }
  }
  return L;
}

// Adds one node of one sample to the gradients of its network, from those of its value f and of its row of the
// Jacobian.
template <class T>
void add_network(const Shape& s, const Tensors<T>& t, int64_t b, int64_t i, double of_f, const double* of_jac,
                 Tensors<double>& out) {
  const int64_t d = s.d;
  for (int64_t k = i * s.hidden; k < (i + 1) * s.hidden; ++k) {
    double pre = at(t.b_in, k), through_jac = 0;
    for (int64_t j = 0; j < i; ++j) {
      const double weight = at(t.w_in, k * d + j) * at(t.edges, i * d + j);
      pre += weight * at(t.pivot, b * d + j);
      through_jac += weight * of_jac[j];
    }
    const Unit unit = phi(s.activation, pre);
    const double w_out = at(t.w_out, k);
    const double of_pre = w_out * (of_f * unit.slope + through_jac * unit.curvature);
    out.w_out[index(k)] += of_f * unit.value + through_jac * unit.slope;
    out.b_in[index(k)] += of_pre;
    for (int64_t j = 0; j < i; ++j) {
      const double weight = at(t.w_in, k * d + j), edge = at(t.edges, i * d + j);
      const double of_weight = w_out * unit.slope * of_jac[j] + of_pre * at(t.pivot, b * d + j);
      out.w_in[index(k * d + j)] += edge * of_weight;
      out.edges[index(i * d + j)] += weight * of_weight;
      out.pivot[index(b * d + j)] += edge * weight * of_pre;
    }
  }
  out.b_out[index(i)] += of_f;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t, const std::vector<T>& upstream) {
  const int64_t d = s.d;
  Results<double> out{std::vector<double>(index(s.batch)),
                      {zeros(t.pivot), zeros(t.w_in), zeros(t.b_in), zeros(t.w_out), zeros(t.b_out), zeros(t.edges),
                       zeros(t.log_sigma), zeros(t.loc), zeros(t.factor)}};
  Tensors<double>& grad = out.gradients;
  for (int64_t b = 0; b < s.batch; ++b) {
    const double g = at(upstream, b);
    const std::vector<double> L = factor_of(s, t, b);
    double& value = out.value[index(b)];
    for (int64_t i = 0; i < d; ++i) {
      std::vector<double> jac(index(d)), row(index(d)), of_jac(index(d));
      double f = at(t.b_out, i);
      for (int64_t k = i * s.hidden; k < (i + 1) * s.hidden; ++k) {
        double pre = at(t.b_in, k);
        for (int64_t j = 0; j < i; ++j) {
          pre += at(t.w_in, k * d + j) * at(t.edges, i * d + j) * at(t.pivot, b * d + j);
        }
        const Unit unit = phi(s.activation, pre);
        f += at(t.w_out, k) * unit.value;
        for (int64_t j = 0; j < i; ++j) {
          jac[index(j)] += at(t.w_out, k) * unit.slope * at(t.w_in, k * d + j) * at(t.edges, i * d + j);
        }
      }
      const auto step = [&](int64_t j) { return at(t.loc, b * d + j) - at(t.pivot, b * d + j); };
      double residual = at(t.loc, b * d + i) - f, square = 0;
      for (int64_t j = 0; j < i; ++j) residual -= jac[index(j)] * step(j);
      for (int64_t c = 0; c <= i; ++c) {  // row i of M = (I - J) L
        double& m = row[index(c)];
        m = L[index(i * d + c)];
        for (int64_t j = c; j < i; ++j) m -= jac[index(j)] * L[index(j * d + c)];
        square += m * m;
      }
      const double precision = std::exp(-2 * at(t.log_sigma, i)), weight = g * precision;
      value += 0.5 * (precision * (square + residual * residual) - 1) + at(t.log_sigma, i);
      value -= std::log(L[index(i * d + i)]);
      grad.log_sigma[index(i)] += g * (1 - precision * (square + residual * residual));
      grad.loc[index(b * d + i)] += weight * residual;
      std::vector<double> of_factor(index(d * d));
      for (int64_t c = 0; c <= i; ++c) of_factor[index(i * d + c)] = weight * row[index(c)];
      of_factor[index(i * d + i)] -= g / L[index(i * d + i)];
      for (int64_t j = 0; j < i; ++j) {
        double of_entry = -weight * residual * step(j);
        for (int64_t c = 0; c <= j; ++c) {
          of_entry -= weight * row[index(c)] * L[index(j * d + c)];
          of_factor[index(j * d + c)] = -weight * row[index(c)] * jac[index(j)];
        }
        of_jac[index(j)] = of_entry;
        grad.loc[index(b * d + j)] -= weight * residual * jac[index(j)];
        grad.pivot[index(b * d + j)] += weight * residual * jac[index(j)];
      }
      for (int64_t j = 0; j <= i; ++j) {
        for (int64_t c = 0; c <= j; ++c) {
          if (s.posterior == Posterior::kDiagonal) {
            if (c == j) grad.factor[index(b * d + j)] += of_factor[index(j * d + c)];
          } else {
            grad.factor[index(b * s.factor_size() + s.row_of_factor(j) + c)] += of_factor[index(j * d + c)];
          }
        }
      }
      add_network(s, t, b, i, -weight * residual, of_jac.data(), grad);
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, const std::vector<T>& upstream, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{std::vector<T>(index(s.batch), nan),
                 {like(t.pivot), like(t.w_in), like(t.b_in), like(t.w_out), like(t.b_out), like(t.edges),
                  like(t.log_sigma), like(t.loc), like(t.factor)}};
  Tensors<T>& grad = out.gradients;
  // Of an empty batch, whose tensors may have no address.
  static const T none = 0;
  const auto batched = [](const std::vector<T>& v, int64_t row) {
    return cvf::Batched<T>{v.empty() ? &none : v.data(), row};
  };
  const bool diagonal = s.posterior == Posterior::kDiagonal;
  mlp::Arguments<T> args;
  args.batch = s.batch;
  args.d = s.d;
  args.hidden = s.hidden;
  args.activation = s.activation;
  args.pivot = batched(t.pivot, s.d);
  args.w_in = t.w_in.data();
  args.b_in = t.b_in.data();
  args.w_out = t.w_out.data();
  args.b_out = t.b_out.data();
  args.edges = t.edges.data();
  args.log_sigma = t.log_sigma.data();
  args.loc = batched(t.loc, s.d);
  (diagonal ? args.scale : args.scale_tril) = batched(t.factor, s.factor_size());
  args.packed_scale_tril = s.posterior == Posterior::kPacked;
  args.value = out.value.data();
  mlp::run(args, threads, isa);  // without gradients
  const std::vector<T> alone = out.value;

  args.upstream = batched(upstream, 1);
  args.grad_pivot = grad.pivot.data();
  args.grad_w_in = grad.w_in.data();
  args.grad_b_in = grad.b_in.data();
  args.grad_w_out = grad.w_out.data();
  args.grad_b_out = grad.b_out.data();
  args.grad_edges = s.edges_learn ? grad.edges.data() : nullptr;
  args.grad_log_sigma = grad.log_sigma.data();
  args.grad_loc = grad.loc.data();
  (diagonal ? args.grad_scale : args.grad_scale_tril) = grad.factor.data();
  mlp::run(args, threads, isa);
  for (int64_t b = 0; b < s.batch; ++b) {
    const double own = at(out.value, b);
    CHECK(cvf::test::close(at(alone, b), own, 200 * static_cast<double>(std::numeric_limits<T>::epsilon())));
  }
  return out;
}

template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth) {
  cvf::test::compare(actual, truth, 200);
}

template <class T>
void test_shape(const Shape& shape, std::mt19937& random) {
  const Tensors<T> tensors = random_tensors<T>(shape, random);
  std::vector<T> upstream(index(shape.batch));
  for (T& g : upstream) g = static_cast<T>(std::normal_distribution<double>()(random));
  const Results<double> truth = expected(shape, tensors, upstream);
  const Tensors<double>& known = truth.gradients;
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (!cvf::isa_available(isa)) continue;
    for (const int threads : {1, 3}) {
      const Results<T> results = run(shape, tensors, upstream, threads, isa);
      const Tensors<T>& found = results.gradients;
      compare(results.value, truth.value);
      compare(found.pivot, known.pivot);
      compare(found.w_in, known.w_in);
      compare(found.b_in, known.b_in);
      compare(found.w_out, known.w_out);
      compare(found.b_out, known.b_out);
      if (shape.edges_learn) compare(found.edges, known.edges);
      compare(found.log_sigma, known.log_sigma);
      compare(found.loc, known.loc);
      compare(found.factor, known.factor);
    }
  }
}

template <class T>
void test_type(std::mt19937& random) {
  int flags = 0;
  for (const int64_t d : {1, 2, 5, 16, 17, 33}) {
    for (const int64_t batch : {0, 1, 17, 40}) {
      for (const int64_t hidden : {1, 3, 8, 13}) {
        for (const Posterior posterior : {Posterior::kDiagonal, Posterior::kFull, Posterior::kPacked}) {
          const Activation activation = static_cast<Activation>(flags / 3 % 4);
          test_shape<T>({batch, d, hidden, activation, posterior, flags % 5 < 3}, random);
          ++flags;
        }
      }
    }
  }
  for (const Posterior posterior : {Posterior::kDiagonal, Posterior::kFull}) {  // worth three threads
    test_shape<T>({200, 40, 20, Activation::kTanh, posterior, false}, random);
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  return cvf::test::report("mlp_sem_kl");
}
