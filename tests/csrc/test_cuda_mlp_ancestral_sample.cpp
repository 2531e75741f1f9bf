// The CUDA kernels of mlp_ancestral_sample, run on the CPU, against its CPU kernels in double.

#include "cuda_checks.h"
#include "ops/ancestral_sample/ancestral_sample_cuda.cuh"

namespace {

namespace op = cvf::ancestral_sample::mlp;
using cvf::Activation;
using cvf::test::draw;
using cvf::test::like;
using cvf::test::to_double;

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

  bool operator==(const Results& other) const {
    using cvf::test::same_bits;
    return same_bits(z, other.z) && same_bits(noise, other.noise) && same_bits(w_in, other.w_in) &&
           same_bits(b_in, other.b_in) && same_bits(w_out, other.w_out) && same_bits(b_out, other.b_out) &&
           same_bits(edges, other.edges) && same_bits(values, other.values);
  }
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  Tensors<T> t{draw<T>(random, s.batch * s.d, 1),
               draw<T>(random, s.d * s.hidden * s.d, 1 / std::sqrt(static_cast<double>(s.d))),
               draw<T>(random, s.d * s.hidden, 1),
               draw<T>(random, s.d * s.hidden, 1 / std::sqrt(static_cast<double>(s.hidden))),
               draw<T>(random, s.d, 1),
               draw<T>(random, s.d * s.d, 1),
               draw<T>(random, (s.shared_values ? 1 : s.batch) * s.d, 1),
               draw<T>(random, s.batch * s.d, 1),
               std::vector<uint8_t>(static_cast<size_t>((s.shared_mask ? 1 : s.batch) * s.d))};
  for (uint8_t& replaced : t.mask) replaced = random() % 4 == 0;
  cvf::test::hide_upper(t.edges, s.d, true);
  for (size_t k = 0; k < t.w_in.size(); ++k) {
    const int64_t node = static_cast<int64_t>(k) / s.d / s.hidden, input = static_cast<int64_t>(k) % s.d;
    if (input >= node) t.w_in[k] = std::numeric_limits<T>::quiet_NaN();
  }
  return t;
}

template <class T>
op::Forward<T> forward_arguments(const Shape& s, const Tensors<T>& t, T* z) {
  op::Forward<T> args;
  args.equations = {.batch = s.batch,
                    .d = s.d,
                    .hidden = s.hidden,
                    .activation = s.activation,
                    .w_in = t.w_in.data(),
                    .b_in = t.b_in.data(),
                    .w_out = t.w_out.data(),
                    .b_out = t.b_out.data(),
                    .edges = t.edges.data(),
                    .do_mask = {t.mask.data(), s.shared_mask ? 0 : s.d}};
  args.noise = {t.noise.data(), s.d};
  args.do_values = {t.values.data(), s.shared_values ? 0 : s.d};
  args.z = z;
  return args;
}

template <class T>
op::Backward<T> backward_arguments(const Shape& s, const Tensors<T>& t, const op::Forward<T>& forward, Results<T>& r) {
  return {.equations = forward.equations,
          .z = {r.z.data(), s.d},
          .upstream = {t.upstream.data(), s.d},
          .shared_values = s.shared_values,
          .grad_noise = r.noise.data(),
          .grad_w_in = r.w_in.data(),
          .grad_b_in = r.b_in.data(),
          .grad_w_out = r.w_out.data(),
          .grad_b_out = r.b_out.data(),
          .grad_edges = r.edges.data(),
          .grad_values = r.values.data()};
}

template <class T>
Results<T> empty_results(const Tensors<T>& t) {
  return {like<T>(t.noise), like<T>(t.noise), like<T>(t.w_in),  like<T>(t.b_in),
          like<T>(t.w_out), like<T>(t.b_out), like<T>(t.edges), like<T>(t.values)};
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t) {
  Results<T> out = empty_results(t);
  const op::Forward<T> forward = forward_arguments(s, t, out.z.data());
  std::vector<T> scratch = cvf::test::scratch<T>(op::cuda::forward_scratch(forward));
  op::cuda::forward(forward, scratch.data(), {});
  const op::Backward<T> backward = backward_arguments(s, t, forward, out);
  scratch = cvf::test::scratch<T>(op::cuda::backward_scratch(backward));
  op::cuda::backward(backward, scratch.data(), {});
  return out;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& given) {
  const Tensors<double> t{to_double(given.noise),  to_double(given.w_in),     to_double(given.b_in),
                          to_double(given.w_out),  to_double(given.b_out),    to_double(given.edges),
                          to_double(given.values), to_double(given.upstream), given.mask};
  Results<double> out = empty_results(t);
  const op::Forward<double> forward = forward_arguments(s, t, out.z.data());
  op::forward(forward, 1);
  op::backward(backward_arguments(s, t, forward, out), 1);
  return out;
}

template <class T>
void test_shape(const Shape& s, std::mt19937& random) {
  const Tensors<T> t = random_tensors<T>(s, random);
  bool same = false;
  const Results<T> results = cvf::test::in_both_orders<T>([&] { return run(s, t); }, same);
  CHECK(same);
  const Results<double> truth = expected(s, t);
  cvf::test::compare(results.z, truth.z, 200);
  cvf::test::compare(results.noise, truth.noise, 200);
  cvf::test::compare(results.w_in, truth.w_in, 200);
  cvf::test::compare(results.b_in, truth.b_in, 200);
  cvf::test::compare(results.w_out, truth.w_out, 200);
  cvf::test::compare(results.b_out, truth.b_out, 200);
  cvf::test::compare(results.edges, truth.edges, 200);
  cvf::test::compare(results.values, truth.values, 200);
}

// NaN in one sample stays there, and in what a replaced node has no use for it does nothing.
void test_nan(std::mt19937& random) {
  const Shape s{40, 6, 5, Activation::kSilu, false, false};
  Tensors<float> t = random_tensors<float>(s, random);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < t.mask.size(); ++k) (t.mask[k] ? t.noise : t.values)[k] = nan;
  const Results<float> results = run(s, t);
  for (const float z : results.z) CHECK(!std::isnan(z));
  for (const float g : results.edges) CHECK(!std::isnan(g));
  t.mask[static_cast<size_t>(5 * s.d)] = 0;
  t.noise[static_cast<size_t>(5 * s.d)] = nan;
  const Results<float> found = run(s, t);
  CHECK(std::isnan(found.z[static_cast<size_t>(5 * s.d)]));
  for (int64_t k = 0; k < s.batch * s.d; ++k) {
    if (k / s.d != 5) CHECK(found.noise[static_cast<size_t>(k)] == results.noise[static_cast<size_t>(k)]);
  }
}

// More than 2^31 weights: those of the last nodes are at addresses that 32 bits do not reach.
void test_large() {
  const int64_t d = 6000, hidden = 70, node = d - 1;
  const cvf::test::Reserved<float> w_in(d * hidden * d), b_in(d * hidden), w_out(d * hidden), edges(d * d), v(d * d);
  w_in.data()[(node * hidden + hidden - 1) * d + node - 1] = 3;
  edges.data()[node * d + node - 1] = 2;
  const op::Equations<float> e{.batch = 1,
                               .d = d,
                               .hidden = hidden,
                               .w_in = w_in.data(),
                               .b_in = b_in.data(),
                               .w_out = w_out.data(),
                               .edges = edges.data()};
  std::vector<float> weights(cvf::cuda::kTileElements);
  threadIdx = {};
  blockDim = {};
  op::cuda::load_weights(weights.data(), e, node, 64, node - 1);
  CHECK(weights[5] == 6);  // input 0 of the tile, unit 69
}

template <class T>
void test_type(std::mt19937& random) {
  int flags = 0;
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33}) {
    for (const int64_t batch : {0, 1, 17}) {
      const int64_t hidden = std::vector<int64_t>{1, 3, 8, 37}[static_cast<size_t>(flags % 4)];
      test_shape<T>({batch, d, hidden, static_cast<Activation>(flags / 2 % 4), flags % 3 == 0, flags % 5 < 2}, random);
      ++flags;
    }
  }
  test_shape<T>({200, 4, 33, Activation::kTanh, false, true}, random);  // several chunks
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  test_nan(random);
  test_large();
  return cvf::test::report("cuda_mlp_ancestral_sample");
}
