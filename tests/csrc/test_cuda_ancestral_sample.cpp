// The CUDA kernels of ancestral_sample, run on the CPU, against its CPU kernels in double.

#include "cuda_checks.h"
#include "ops/ancestral_sample/ancestral_sample_cuda.cuh"

namespace {

namespace op = cvf::ancestral_sample;
using cvf::test::draw;
using cvf::test::like;
using cvf::test::to_double;

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

  bool operator==(const Results& other) const {
    using cvf::test::same_bits;
    return same_bits(z, other.z) && same_bits(noise, other.noise) && same_bits(jac, other.jac) &&
           same_bits(quadratic, other.quadratic) && same_bits(offset, other.offset) && same_bits(values, other.values);
  }
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  const double d = static_cast<double>(s.d);
  const int64_t square = (s.shared_jac ? 1 : s.batch) * s.d * s.d;
  Tensors<T> t{draw<T>(random, s.batch * s.d, 1),
               draw<T>(random, square, 1 / std::sqrt(d)),
               draw<T>(random, s.quadratic ? square : 0, 0.2 / d),
               draw<T>(random, s.d, 1),
               draw<T>(random, (s.shared_values ? 1 : s.batch) * s.d, 1),
               draw<T>(random, s.batch * s.d, 1),
               std::vector<uint8_t>(static_cast<size_t>((s.shared_mask ? 1 : s.batch) * s.d))};
  for (uint8_t& replaced : t.mask) replaced = random() % 4 == 0;
  cvf::test::hide_upper(t.jac, s.d, true);
  cvf::test::hide_upper(t.quadratic, s.d, true);
  return t;
}

template <class T>
op::Forward<T> forward_arguments(const Shape& s, const Tensors<T>& t, T* z) {
  const int64_t square = s.shared_jac ? 0 : s.d * s.d;
  op::Forward<T> args;
  args.equations = {.batch = s.batch, .d = s.d, .jac = {t.jac.data(), square}, .shared_jac = s.shared_jac};
  if (s.quadratic) args.equations.quadratic = {t.quadratic.data(), square};
  args.equations.do_mask = {t.mask.data(), s.shared_mask ? 0 : s.d};
  args.noise = {t.noise.data(), s.d};
  args.offset = t.offset.data();
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
          .grad_jac = r.jac.data(),
          .grad_quadratic = s.quadratic ? r.quadratic.data() : nullptr,
          .grad_offset = r.offset.data(),
          .grad_values = r.values.data()};
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t) {
  Results<T> out{like<T>(t.noise),     like<T>(t.noise),  like<T>(t.jac),
                 like<T>(t.quadratic), like<T>(t.offset), like<T>(t.values)};
  const op::Forward<T> forward = forward_arguments(s, t, out.z.data());
  op::cuda::forward(forward, {});
  const op::Backward<T> backward = backward_arguments(s, t, forward, out);
  std::vector<T> scratch = cvf::test::scratch<T>(op::cuda::backward_scratch(backward));
  op::cuda::backward(backward, scratch.data(), {});
  return out;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& given) {
  const Tensors<double> t{to_double(given.noise),
                          to_double(given.jac),
                          to_double(given.quadratic),
                          to_double(given.offset),
                          to_double(given.values),
                          to_double(given.upstream),
                          given.mask};
  Results<double> out{like<double>(t.noise),     like<double>(t.noise),  like<double>(t.jac),
                      like<double>(t.quadratic), like<double>(t.offset), like<double>(t.values)};
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
  cvf::test::compare(results.z, truth.z, 100);
  cvf::test::compare(results.noise, truth.noise, 100);
  cvf::test::compare(results.jac, truth.jac, 100);
  cvf::test::compare(results.quadratic, truth.quadratic, 100);
  cvf::test::compare(results.offset, truth.offset, 100);
  cvf::test::compare(results.values, truth.values, 100);
}

// NaN in one sample, and in what a replaced node has no use for.
void test_nan(bool shared_jac, int64_t d, std::mt19937& random) {
  const Shape s{17, d, true, shared_jac, false, false};
  Tensors<float> t = random_tensors<float>(s, random);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < t.mask.size(); ++k) (t.mask[k] ? t.noise : t.values)[k] = nan;
  const Results<float> results = run(s, t);
  for (const float z : results.z) CHECK(!std::isnan(z));
  for (const float g : results.jac) CHECK(!std::isnan(g));
  Tensors<float> spoilt = t;
  for (int64_t i = 0; i < d; ++i) {
    spoilt.mask[static_cast<size_t>(5 * d + i)] = 0;
    spoilt.noise[static_cast<size_t>(5 * d + i)] = nan;
  }
  const Results<float> found = run(s, spoilt);
  for (int64_t k = 0; k < 17 * d; ++k) {
    const size_t at = static_cast<size_t>(k);
    CHECK(k / d == 5 ? std::isnan(found.z[at]) : found.z[at] == results.z[at]);
    if (k / d != 5) CHECK(found.noise[at] == results.noise[at]);
  }
}

// A batch whose matrices have more than 2^32 elements, of which the last blocks are computed.
void test_large(int64_t d) {
  const int64_t batch = (int64_t{1} << 32) / (d * d) + 40;
  const cvf::test::Reserved<float> jac(batch * d * d), grad_jac(batch * d * d);
  const cvf::test::Reserved<float> noise(batch * d), z(batch * d), offset(d), upstream(batch * d), lambda(batch * d);
  const int64_t last = batch - 1;
  for (int64_t i = 0; i < d; ++i) {
    noise.data()[last * d + i] = upstream.data()[last * d + i] = 1;
    for (int64_t j = 0; j < i; ++j) jac.data()[(last * d + i) * d + j] = j == i - 1 ? 1 : 0;
  }
  op::Forward<float> forward;
  forward.equations = {.batch = batch, .d = d, .jac = {jac.data(), d * d}};
  forward.noise = {noise.data(), d};
  forward.offset = offset.data();
  forward.z = z.data();
  const op::Backward<float> backward{.equations = forward.equations,
                                     .z = {z.data(), d},
                                     .upstream = {upstream.data(), d},
                                     .grad_noise = lambda.data(),
                                     .grad_jac = grad_jac.data()};
  const int64_t samples = d <= cvf::cuda::kMostGrouped ? cvf::cuda::kGroupThreads / cvf::cuda::group_width(d) : 1;
  cvf::cuda::Block::first_block = cvf::cuda::blocks_of(batch, samples) - 1;
  op::cuda::forward(forward, {});
  op::cuda::backward(backward, static_cast<float*>(nullptr), {});
  cvf::cuda::Block::first_block = 0;
  for (int64_t i = 0; i < d; ++i) {
    CHECK(z.data()[last * d + i] == static_cast<float>(i + 1));
    CHECK(lambda.data()[last * d + i] == static_cast<float>(d - i));
    if (i > 0) CHECK(grad_jac.data()[(last * d + i) * d + i - 1] == static_cast<float>((d - i) * i));
  }
}

template <class T>
void test_type(std::mt19937& random) {
  int flags = 0;
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 65}) {
    for (const int64_t batch : {0, 1, 17}) {
      for (int k = 0; k < 4; ++k, ++flags) {
        if (d > 17 && batch == 17 && (k + d) % 2 == 0) continue;
        const int mixed = k + 4 * (flags / 4 % 4);
        test_shape<T>({batch, d, (mixed & 1) != 0, (mixed & 2) != 0, (mixed & 4) != 0, (mixed & 8) != 0}, random);
      }
    }
  }
  test_shape<T>({1100, 3, true, true, false, true}, random);  // sums over the batch in several chunks
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  for (const int64_t d : {5, 33}) {
    test_nan(false, d, random);
    test_nan(true, d, random);
  }
  test_large(16);
  test_large(64);
  return cvf::test::report("cuda_ancestral_sample");
}
