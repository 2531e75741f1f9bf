// The kernels of mlp_ancestral_sample against the recurrence and its adjoint, written down once more in double.
//
// Inputs and outputs are allocated to the element, so that the address sanitizer sees any access past them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/ancestral_sample/mlp.h"

namespace {

namespace mlp = cvf::ancestral_sample::mlp;
using cvf::Activation;

struct Shape {
  int64_t batch, d, hidden;
  Activation activation;
  bool shared_mask, shared_values;
};

template <class T>
struct Tensors {
  std::vector<T> noise, w_in, b_in, w_out, b_out, edges, values, upstream;
  std::vector<uint8_t> mask;
};

template <class T>
struct Results {
  std::vector<T> z, noise, w_in, b_in, w_out, b_out, edges, values;
};

size_t index(int64_t k) { return static_cast<size_t>(k); }

double phi(Activation activation, double x) {
  switch (activation) {
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kSoftplus:
      return std::log1p(std::exp(x));
    default:
      return x > 0 ? x : 0.01 * x;
  }
}

double slope(Activation activation, double x) {
  const double logistic = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::kTanh:
      return 1 / (std::cosh(x) * std::cosh(x));
    case Activation::kSilu:
      return logistic * (1 + x * (1 - logistic));
    case Activation::kSoftplus:
      return logistic;
    default:
      return x > 0 ? 1 : 0.01;
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
  Tensors<T> t;
  t.noise = draw(s.batch * s.d, 1);
  t.w_in = draw(s.d * s.hidden * s.d, 1 / std::sqrt(static_cast<double>(s.d)));
  t.b_in = draw(s.d * s.hidden, 1);
  t.w_out = draw(s.d * s.hidden, 1 / std::sqrt(static_cast<double>(s.hidden)));
  t.b_out = draw(s.d, 1);
  t.edges = draw(s.d * s.d, 1);
  t.values = draw((s.shared_values ? 1 : s.batch) * s.d, 1);
  t.upstream = draw(s.batch * s.d, 1);
  t.mask.resize(index((s.shared_mask ? 1 : s.batch) * s.d));
  for (uint8_t& replaced : t.mask) replaced = normal(random) > 0.5 ? 1 : 0;
  for (int64_t i = 0; i < s.d; ++i) {  // NaN where nothing may be used
    for (int64_t j = i; j < s.d; ++j) {
      t.edges[index(i * s.d + j)] = nan;
      for (int64_t k = 0; k < s.hidden; ++k) t.w_in[index((i * s.hidden + k) * s.d + j)] = nan;
    }
  }
  return t;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& t) {
  const int64_t d = s.d, h = s.hidden;
  const auto zeros = [](const std::vector<T>& v) { return std::vector<double>(v.size()); };
  const auto get = [](const std::vector<T>& v, int64_t k) { return static_cast<double>(v[index(k)]); };
  Results<double> out{zeros(t.noise), zeros(t.noise), zeros(t.w_in),  zeros(t.b_in),
                      zeros(t.w_out), zeros(t.b_out), zeros(t.edges), zeros(t.values)};
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t mask = s.shared_mask ? 0 : b * d, values = s.shared_values ? 0 : b * d;
    std::vector<double> pre(index(d * h)), adjoint(index(d));
    double* z = out.z.data() + b * d;
    for (int64_t i = 0; i < d; ++i) {
      z[i] = get(t.noise, b * d + i) + get(t.b_out, i);
      for (int64_t k = i * h; k < (i + 1) * h; ++k) {
        double sum = get(t.b_in, k);
        for (int64_t j = 0; j < i; ++j) sum += get(t.w_in, k * d + j) * get(t.edges, i * d + j) * z[j];
        z[i] += get(t.w_out, k) * phi(s.activation, sum);
        pre[index(k)] = sum;
      }
      if (t.mask[index(mask + i)]) z[i] = get(t.values, values + i);
      adjoint[index(i)] = get(t.upstream, b * d + i);
    }
    for (int64_t i = d - 1; i >= 0; --i) {
      const double a = adjoint[index(i)];
      if (t.mask[index(mask + i)]) {
        out.values[index(values + i)] += a;
        continue;
      }
      out.noise[index(b * d + i)] = a;
      out.b_out[index(i)] += a;
      for (int64_t k = i * h; k < (i + 1) * h; ++k) {
        const double delta = a * get(t.w_out, k) * slope(s.activation, pre[index(k)]);
        out.w_out[index(k)] += a * phi(s.activation, pre[index(k)]);
        out.b_in[index(k)] += delta;
        for (int64_t j = 0; j < i; ++j) {
          const double weight = get(t.w_in, k * d + j), edge = get(t.edges, i * d + j);
          out.w_in[index(k * d + j)] += delta * edge * z[j];
          out.edges[index(i * d + j)] += delta * weight * z[j];
          adjoint[index(j)] += delta * edge * weight;
        }
      }
    }
  }
  return out;
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t, int threads, cvf::Isa isa) {
  const T nan = std::numeric_limits<T>::quiet_NaN();  // an element that is not written stays NaN
  const auto like = [&](const std::vector<T>& v) { return std::vector<T>(v.size(), nan); };
  Results<T> out{like(t.noise), like(t.noise), like(t.w_in),  like(t.b_in),
                 like(t.w_out), like(t.b_out), like(t.edges), like(t.values)};
  mlp::Forward<T> forward;
  forward.equations = {.batch = s.batch,
                       .d = s.d,
                       .hidden = s.hidden,
                       .activation = s.activation,
                       .w_in = t.w_in.data(),
                       .b_in = t.b_in.data(),
                       .w_out = t.w_out.data(),
                       .b_out = t.b_out.data(),
                       .edges = t.edges.data(),
                       .do_mask = {t.mask.data(), s.shared_mask ? 0 : s.d}};
  forward.noise = {t.noise.data(), s.d};
  forward.do_values = {t.values.data(), s.shared_values ? 0 : s.d};
  forward.z = out.z.data();
  mlp::forward(forward, threads, isa);

  mlp::Backward<T> backward;
  backward.equations = forward.equations;
  backward.z = {out.z.data(), s.d};
  backward.upstream = {t.upstream.data(), s.d};
  backward.shared_values = s.shared_values;
  backward.grad_noise = out.noise.data();
  backward.grad_w_in = out.w_in.data();
  backward.grad_b_in = out.b_in.data();
  backward.grad_w_out = out.w_out.data();
  backward.grad_b_out = out.b_out.data();
  backward.grad_edges = out.edges.data();
  backward.grad_values = out.values.data();
  mlp::backward(backward, threads, isa);
  return out;
}

template <class T>
void compare(const std::vector<T>& actual, const std::vector<double>& truth) {
  cvf::test::compare(actual, truth, 200);
}

template <class T>
void test_shape(const Shape& shape, std::mt19937& random) {
  const Tensors<T> tensors = random_tensors<T>(shape, random);
  const Results<double> truth = expected(shape, tensors);
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (!cvf::isa_available(isa)) continue;
    for (const int threads : {1, 3}) {
      const Results<T> results = run(shape, tensors, threads, isa);
      compare(results.z, truth.z);
      compare(results.noise, truth.noise);
      compare(results.w_in, truth.w_in);
      compare(results.b_in, truth.b_in);
      compare(results.w_out, truth.w_out);
      compare(results.b_out, truth.b_out);
      compare(results.edges, truth.edges);
      compare(results.values, truth.values);
    }
  }
}

template <class T>
void test_type(std::mt19937& random) {
  int flags = 0;
  for (const int64_t d : {1, 2, 5, 16, 17, 33}) {
    for (const int64_t batch : {0, 1, 17, 40, 300}) {
      for (const int64_t hidden : {1, 3, 8, 13}) {
        const Activation activation = static_cast<Activation>(flags % 4);
        test_shape<T>({batch, d, hidden, activation, flags % 3 == 0, flags % 5 < 2}, random);
        ++flags;
      }
    }
  }
  test_shape<T>({300, 40, 30, Activation::kTanh, false, true}, random);  // worth three threads
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  return cvf::test::report("mlp_ancestral_sample");
}
