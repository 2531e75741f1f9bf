// The CUDA kernel of gaussian_kl, run on the CPU, against its CPU kernels in double.

#include "cuda_checks.h"
#include "ops/gaussian_kl/gaussian_kl_cuda.cuh"

namespace {

namespace op = cvf::gaussian_kl;
using cvf::test::draw;
using cvf::test::like;
using cvf::test::to_double;

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

  bool operator==(const Results& other) const {
    using cvf::test::same_bits;
    return same_bits(value, other.value) && same_bits(loc_q, other.loc_q) && same_bits(loc_p, other.loc_p) &&
           same_bits(matrix_q, other.matrix_q) && same_bits(matrix_p, other.matrix_p);
  }
};

// Factors with a diagonal around 1, or their squares; NaN above the diagonal.
template <class T>
std::vector<T> random_matrices(std::mt19937& random, int64_t count, int64_t d, bool covariance) {
  std::vector<T> factors = draw<T>(random, count * d * d, 0.5 / std::sqrt(static_cast<double>(d)));
  std::vector<T> found = factors;
  for (int64_t k = 0; k < count * d * d; ++k) {
    const int64_t matrix = k / (d * d) * d * d, i = k / d % d, j = k % d;
    const auto entry = [&](int64_t row, int64_t column) {
      const T x = factors[static_cast<size_t>(matrix + row * d + column)];
      return row == column ? 1 + x * x : row > column ? x : T(0);
    };
    T value = entry(i, j);
    if (covariance) {
      value = 0;
      for (int64_t c = 0; c < d; ++c) value += entry(i, c) * entry(j, c);
    }
    found[static_cast<size_t>(k)] = value;
  }
  cvf::test::hide_upper(found, d, false);
  return found;
}

template <class T>
Tensors<T> random_tensors(const Shape& s, std::mt19937& random) {
  return {draw<T>(random, s.batch * s.d, 1), draw<T>(random, (s.shared_loc ? 1 : s.batch) * s.d, 1),
          random_matrices<T>(random, s.batch, s.d, s.covariance_q),
          random_matrices<T>(random, s.shared_matrix ? 1 : s.batch, s.d, s.covariance_p), draw<T>(random, s.batch, 1)};
}

template <class T>
op::Arguments<T> arguments(const Shape& s, const Tensors<T>& t, Results<T>& r) {
  const int64_t square = s.d * s.d;
  return {.batch = s.batch,
          .d = s.d,
          .loc_q = {t.loc_q.data(), s.d},
          .loc_p = {t.loc_p.data(), s.shared_loc ? 0 : s.d},
          .matrix_q = {t.matrix_q.data(), square},
          .matrix_p = {t.matrix_p.data(), s.shared_matrix ? 0 : square},
          .upstream = {t.upstream.data(), 1},
          .covariance_q = s.covariance_q,
          .covariance_p = s.covariance_p,
          .shared_loc_p = s.shared_loc,
          .shared_matrix_p = s.shared_matrix,
          .value = r.value.data(),
          .grad_loc_q = r.loc_q.data(),
          .grad_loc_p = r.loc_p.data(),
          .grad_matrix_q = r.matrix_q.data(),
          .grad_matrix_p = r.matrix_p.data()};
}

template <class T>
Results<T> empty_results(const Tensors<T>& t) {
  return {like<T>(t.upstream), like<T>(t.loc_q), like<T>(t.loc_p), like<T>(t.matrix_q), like<T>(t.matrix_p)};
}

template <class T>
void run_into(const op::Arguments<T>& args) {
  std::vector<T> scratch = cvf::test::scratch<T>(op::cuda::scratch(args));
  op::cuda::run(args, scratch.data(), {});
}

template <class T>
Results<T> run(const Shape& s, const Tensors<T>& t) {
  Results<T> out = empty_results(t);
  run_into(arguments(s, t, out));
  return out;
}

template <class T>
Results<double> expected(const Shape& s, const Tensors<T>& given) {
  const Tensors<double> t{to_double(given.loc_q), to_double(given.loc_p), to_double(given.matrix_q),
                          to_double(given.matrix_p), to_double(given.upstream)};
  Results<double> out = empty_results(t);
  op::run(arguments(s, t, out), 1);
  return out;
}

template <class T>
void test_shape(const Shape& s, std::mt19937& random) {
  const Tensors<T> t = random_tensors<T>(s, random);
  bool same = false;
  Results<T> results = cvf::test::in_both_orders<T>([&] { return run(s, t); }, same);
  CHECK(same);
  const Results<double> truth = expected(s, t);
  cvf::test::compare(results.value, truth.value, 300);
  cvf::test::compare(results.loc_q, truth.loc_q, 300);
  cvf::test::compare(results.loc_p, truth.loc_p, 300);
  cvf::test::compare(results.matrix_q, truth.matrix_q, 300);
  cvf::test::compare(results.matrix_p, truth.matrix_p, 300);
  if ((s.d > 5 && s.batch != 1) || s.d > 33) return;
  // Each result alone is the same.
  const Results<T> kept = results;
  for (int wanted = 0; wanted < 5; ++wanted) {
    op::Arguments<T> args = arguments(s, t, results);
    if (wanted != 0) args.value = nullptr;
    if (wanted != 1) args.grad_loc_q = nullptr;
    if (wanted != 2) args.grad_loc_p = nullptr;
    if (wanted != 3) args.grad_matrix_q = nullptr;
    if (wanted != 4) args.grad_matrix_p = nullptr;
    run_into(args);
  }
  CHECK(results == kept);
}

// A covariance matrix that is not positive definite, and NaN, spoil their sample only.
void test_nan(int64_t d, std::mt19937& random) {
  const Shape s{5, d, true, true, false, false};
  Tensors<float> t = random_tensors<float>(s, random);
  const Results<float> results = run(s, t);
  t.matrix_q[static_cast<size_t>(1 * d * d + (d - 1) * d + d - 1)] = -1;
  t.matrix_p[static_cast<size_t>(2 * d * d)] = 0;
  t.loc_q[static_cast<size_t>(3 * d)] = std::numeric_limits<float>::quiet_NaN();
  const Results<float> found = run(s, t);
  for (size_t k = 0; k < 5; ++k) {
    CHECK(k == 0 || k == 4 ? found.value[k] == results.value[k] : std::isnan(found.value[k]));
  }
  for (size_t k = 0; k < found.matrix_p.size(); ++k) {
    const int64_t sample = static_cast<int64_t>(k) / (d * d);
    if (sample == 0 || sample == 4) CHECK(found.matrix_p[k] == results.matrix_p[k]);
  }
}

// A batch whose matrices have more than 2^32 elements, of which the last block is computed.
void test_large() {
  const int64_t d = 16, batch = (int64_t{1} << 32) / (d * d) + 40, last = batch - 1;
  const cvf::test::Reserved<float> loc(batch * d), q(batch * d * d), p(batch * d * d), gradient(batch * d * d);
  const cvf::test::Reserved<float> value(batch);
  for (int64_t i = 0; i < d; ++i) {
    q.data()[(last * d + i) * d + i] = 1;
    p.data()[(last * d + i) * d + i] = 2;
  }
  op::Arguments<float> args;
  args.batch = batch;
  args.d = d;
  args.loc_q = args.loc_p = {loc.data(), d};
  args.matrix_q = {q.data(), d * d};
  args.matrix_p = {p.data(), d * d};
  args.value = value.data();
  args.grad_matrix_q = gradient.data();
  cvf::cuda::Block::first_block = last;
  op::cuda::run(args, static_cast<float*>(nullptr), {});
  cvf::cuda::Block::first_block = 0;
  CHECK(cvf::test::close(value.data()[last], 16 * (std::log(2.0) - 0.375), 1e-5));
  CHECK(cvf::test::close(gradient.data()[(last * d + d - 1) * d + d - 1], -0.75, 1e-5));
}

template <class T>
void test_type(std::mt19937& random) {
  int flags = 0;
  for (const int64_t d : {1, 2, 3, 5, 16, 17, 33, 65}) {
    for (const int64_t batch : {0, 1, 17}) {
      for (int k = 0; k < 2; ++k, ++flags) {
        const int mixed = d < 17 ? flags : 5 * flags + 3;
        if (d > 5 && batch == 17 && k > 0) continue;
        const int64_t count = d > 5 && batch == 17 ? 3 : batch;
        test_shape<T>({count, d, (mixed & 1) != 0, (mixed & 2) != 0, (mixed & 4) != 0, (mixed & 8) != 0}, random);
      }
    }
  }
  for (int given = 0; given < 4; ++given) {  // each way in which the two are given
    test_shape<T>({2, 34, (given & 1) != 0, (given & 2) != 0, given == 1, given > 1}, random);
  }
}

}  // namespace

int main() {
  std::mt19937 random(0);
  test_type<float>(random);
  test_type<double>(random);
  test_nan(5, random);
  test_nan(33, random);
  test_large();
  return cvf::test::report("cuda_gaussian_kl");
}
