// The CUDA kernels of propagate, run on the CPU, against its CPU kernels in double.

#include "cuda_checks.h"
#include "ops/ancestral_sample/ancestral_sample_cuda.cuh"
#include "ops/propagate/propagate_cuda.cuh"

namespace {

namespace op = cvf::propagate;
using cvf::test::draw;
using cvf::test::like;
using cvf::test::to_double;

struct Shape {
  int64_t batch, d;
  bool shared_jac, shared_offset;

  int64_t square() const { return shared_jac ? 0 : d * d; }
};

template <class T>
struct Tensors {
  std::vector<T> jac, offset, log_sigma, upstream_loc, upstream_scale_tril;
};

template <class T>
struct Results {
  std::vector<T> loc, scale_tril, jac, offset, log_sigma;

  bool operator==(const Results& other) const {
    using cvf::test::same_bits;
    return same_bits(loc, other.loc) && same_bits(scale_tril, other.scale_tril) && same_bits(jac, other.jac) &&
           same_bits(offset, other.offset) && same_bits(log_sigma, other.log_sigma);
  }
};

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  const int64_t square = (s.shared_jac ? 1 : s.batch) * s.d * s.d;
  Tensors<T> t{draw<T>(random, square, 1 / std::sqrt(static_cast<double>(s.d))),
               draw<T>(random, (s.shared_offset ? 1 : s.batch) * s.d, 1), draw<T>(random, s.d, 0.3),
               draw<T>(random, s.batch * s.d, 1), draw<T>(random, square, 1)};
  cvf::test::hide_upper(t.jac, s.d, true);
  cvf::test::hide_upper(t.upstream_scale_tril, s.d, false);
  return t;
}

template <class T>
op::Forward<T> forward_arguments(const Shape& s, const Tensors<T>& t, Results<T>& r) {
  return {.batch = s.batch,
          .d = s.d,
          .jac = {t.jac.data(), s.square()},
          .offset = {t.offset.data(), s.shared_offset ? 0 : s.d},
          .log_sigma = t.log_sigma.data(),
          .shared_jac = s.shared_jac,
          .loc = r.loc.data(),
          .scale_tril = r.scale_tril.data()};
}

template <class T>
op::Backward<T> backward_arguments(const Shape& s, const Tensors<T>& t, Results<T>& r) {
  return {.batch = s.batch,
          .d = s.d,
          .jac = {t.jac.data(), s.square()},
          .log_sigma = t.log_sigma.data(),
          .loc = {r.loc.data(), s.d},
          .scale_tril = {r.scale_tril.data(), s.square()},
          .upstream_loc = {t.upstream_loc.data(), s.d},
          .upstream_scale_tril = {t.upstream_scale_tril.data(), s.square()},
          .shared_jac = s.shared_jac,
          .shared_offset = s.shared_offset,
          .grad_jac = r.jac.data(),
          .grad_offset = r.offset.data(),
          .grad_log_sigma = r.log_sigma.data()};
}

template <class T>
Results<T> empty_results(const Tensors<T>& t) {
  return {like<T>(t.upstream_loc), like<T>(t.jac), like<T>(t.jac), like<T>(t.offset), like<T>(t.log_sigma)};
}

template <class T>
void run_backward(const op::Backward<T>& args) {
  std::vector<T> scratch = cvf::test::scratch<T>(op::cuda::backward_scratch(args));
  op::cuda::backward(args, scratch.data(), {});
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t) {
  Results<T> out = empty_results(t);
  op::cuda::forward(forward_arguments(s, t, out), {});
  run_backward(backward_arguments(s, t, out));
  return out;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& given) {
  const Tensors<double> t{to_double(given.jac), to_double(given.offset), to_double(given.log_sigma),
                          to_double(given.upstream_loc), to_double(given.upstream_scale_tril)};
  Results<double> out = empty_results(t);
  op::forward(forward_arguments(s, t, out), 1);
  op::backward(backward_arguments(s, t, out), 1);
  return out;
}

template <class T>
void test_shape(const Shape& s, std::mt19937& random) {
  const Tensors<T> t = random_tensors<T>(s, random);
  bool same = false;
  Results<T> results = cvf::test::in_both_orders<T>([&] { return run(s, t); }, same);
  CHECK(same);
  const Results<double> truth = expected(s, t);
  cvf::test::compare(results.loc, truth.loc, 100);
  cvf::test::compare(results.scale_tril, truth.scale_tril, 100);
  cvf::test::compare(results.jac, truth.jac, 100);
  cvf::test::compare(results.offset, truth.offset, 100);
  cvf::test::compare(results.log_sigma, truth.log_sigma, 100);
  if (s.d > 5 && s.batch != 1) return;
  // Each gradient alone is the same; that of the offset, found by a kernel of its own, up to rounding.
  const Results<T> kept = results;
  for (int wanted = 0; wanted < 3; ++wanted) {
    op::Backward<T> args = backward_arguments(s, t, results);
    if (wanted != 0) args.grad_jac = nullptr;
    if (wanted != 1) args.grad_offset = nullptr;
    if (wanted != 2) args.grad_log_sigma = nullptr;
    run_backward(args);
  }
  cvf::test::compare(results.offset, truth.offset, 100);
  results.offset = kept.offset;
  CHECK(results == kept);
}

// NaN in one sample is NaN in that one.
void test_nan(int64_t d, std::mt19937& random) {
  const Shape s{17, d, false, false};
  Tensors<float> t = random_tensors<float>(s, random);
  const Results<float> results = run(s, t);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  t.jac[static_cast<size_t>((5 * d + d - 1) * d)] = nan;
  t.offset[static_cast<size_t>(5 * d)] = nan;
  const Results<float> found = run(s, t);
  for (int64_t k = 0; k < 17 * d * d; ++k) {
    if (k / (d * d) != 5) CHECK(found.jac[static_cast<size_t>(k)] == results.jac[static_cast<size_t>(k)]);
  }
  for (int64_t k = 0; k < 17 * d; ++k) {
    const size_t at = static_cast<size_t>(k);
    CHECK(k / d == 5 ? std::isnan(found.loc[at]) : found.loc[at] == results.loc[at]);
  }
}

// A batch whose matrices have more than 2^32 elements, of which the last blocks are computed.
void test_large(int64_t d) {
  const int64_t batch = (int64_t{1} << 32) / (d * d) + 40, last = batch - 1;
  const cvf::test::Reserved<float> jac(batch * d * d), factor(batch * d * d), grad_jac(batch * d * d);
  const cvf::test::Reserved<float> offset(batch * d), loc(batch * d), upstream(batch * d), log_sigma(d);
  for (int64_t i = 0; i < d; ++i) {
    offset.data()[last * d + i] = upstream.data()[last * d + i] = 1;
    for (int64_t j = 0; j < i; ++j) jac.data()[(last * d + i) * d + j] = j == i - 1 ? 1 : 0;
  }
  const op::Forward<float> forward{.batch = batch,
                                   .d = d,
                                   .jac = {jac.data(), d * d},
                                   .offset = {offset.data(), d},
                                   .log_sigma = log_sigma.data(),
                                   .loc = loc.data(),
                                   .scale_tril = factor.data()};
  const cvf::test::Reserved<float> grad_offset(batch * d);
  const op::Backward<float> backward{.batch = batch,
                                     .d = d,
                                     .jac = {jac.data(), d * d},
                                     .log_sigma = log_sigma.data(),
                                     .loc = {loc.data(), d},
                                     .scale_tril = {factor.data(), d * d},
                                     .upstream_loc = {upstream.data(), d},
                                     .upstream_scale_tril = {jac.data(), d * d},
                                     .grad_jac = grad_jac.data(),
                                     .grad_offset = grad_offset.data()};
  const int64_t samples = d <= cvf::cuda::kMostGrouped ? cvf::cuda::kGroupThreads / cvf::cuda::group_width(d) : 1;
  cvf::cuda::Block::first_block = cvf::cuda::blocks_of(batch, samples) - 1;
  op::cuda::forward(forward, {});
  op::cuda::backward(backward, static_cast<float*>(nullptr), {});
  cvf::cuda::Block::first_block = 0;
  for (int64_t i = 0; i < d; ++i) {
    CHECK(loc.data()[last * d + i] == static_cast<float>(i + 1));
    CHECK(factor.data()[(last * d + i) * d] == 1);
    CHECK(grad_offset.data()[last * d + i] == static_cast<float>(d - i));
    if (i > 0) CHECK(grad_jac.data()[(last * d + i) * d] >= static_cast<float>(d - i));
  }
}

template <class T>
void test_type(std::mt19937& random) {
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 65}) {
    for (const int64_t batch : {0, 1, 17}) {
      for (const int flags : {0, 1, 2, 3}) {
        if (flags == 3 && batch != 1) continue;             // nothing has a batch
        if (d > 17 && batch == 17 && flags == 2) continue;  // as with flags 0, but for a sum
        test_shape<T>({d > 33 && batch == 17 && flags == 0 ? 3 : batch, d, (flags & 1) != 0, (flags & 2) != 0}, random);
      }
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  test_nan(5, random);
  test_nan(33, random);
  test_large(16);
  test_large(64);
  return cvf::test::report("cuda_propagate");
}
