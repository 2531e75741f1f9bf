// Calls of the CUDA ops in float32, whose kernels run on the CPU and are counted: see counter.h.
//
// Reads calls from its input, a line for each, and prints the launches of each as a line of JSON:
//
//   propagate backward 8 64 0 run jac offset log_sigma
//
// that is op, pass, batch, d, hidden units, "run" or "plan" (launches are listed and not carried out), and options.

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <set>
#include <sstream>
#include <stdexcept>

#include "counter.h"
#include "ops/ancestral_sample/ancestral_sample_cuda.cuh"
#include "ops/gaussian_kl/gaussian_kl_cuda.cuh"
#include "ops/propagate/propagate_cuda.cuh"

namespace {

struct Call {
  std::string op, pass;
  int64_t batch = 0, d = 0, hidden = 0;
  bool runs = true;
  std::set<std::string> options;

  bool has(const char* option) const { return options.contains(option); }
  bool forward() const { return pass == "forward"; }
};

// The tensors of a call, as the device's allocator aligns them.
class Tensors {
 public:
  explicit Tensors(bool filled) : filled_(filled) {}
  ~Tensors() {
    for (float* tensor : held_) std::free(tensor);
  }
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;

  // Zeros, or nothing where nothing is carried out. Null for no elements.
  float* zeros(int64_t elements) {
    if (elements == 0) return nullptr;
    const size_t bytes = (static_cast<size_t>(elements) * sizeof(float) + 255) / 256 * 256;
    auto* const found = static_cast<float*>(std::aligned_alloc(256, bytes));
    held_.push_back(found);
    if (filled_) {
      std::memset(found, 0, bytes);
      cvf::traffic::add_memory(found, bytes);
    }
    return found;
  }

  float* identities(int64_t count, int64_t d) {
    float* const found = zeros(count * d * d);
    for (int64_t k = 0; filled_ && k < count * d; ++k) found[k * d + k % d] = 1;
    return found;
  }

  float* wanted(bool is_wanted, int64_t elements) { return is_wanted ? zeros(elements) : nullptr; }

 private:
  bool filled_;
  std::vector<float*> held_;
};

void propagate(const Call& call, Tensors& t) {
  namespace op = cvf::propagate;
  const int64_t d = call.d, rows = call.batch * d;
  const bool shared = call.has("shared_jac");
  const int64_t square = shared ? 0 : d * d, matrices = (shared ? 1 : call.batch) * d * d;
  const cvf::Batched<float> jac{t.zeros(matrices), square};
  if (call.forward()) {
    op::cuda::forward(op::Forward<float>{.batch = call.batch,
                                         .d = d,
                                         .jac = jac,
                                         .offset = {t.zeros(rows), d},
                                         .log_sigma = t.zeros(d),
                                         .shared_jac = shared,
                                         .loc = t.zeros(rows),
                                         .scale_tril = t.zeros(matrices)},
                      {});
    return;
  }
  const op::Backward<float> args{.batch = call.batch,
                                 .d = d,
                                 .jac = jac,
                                 .log_sigma = t.zeros(d),
                                 .loc = {t.zeros(rows), d},
                                 .scale_tril = {t.zeros(matrices), square},
                                 .upstream_loc = {t.zeros(rows), d},
                                 .upstream_scale_tril = {t.zeros(matrices), square},
                                 .shared_jac = shared,
                                 .grad_jac = t.wanted(call.has("jac"), matrices),
                                 .grad_offset = t.wanted(call.has("offset"), rows),
                                 .grad_log_sigma = t.wanted(call.has("log_sigma"), d)};
  op::cuda::backward(args, t.zeros(op::cuda::backward_scratch(args)), {});
}

void gaussian_kl(const Call& call, Tensors& t) {
  namespace op = cvf::gaussian_kl;
  const int64_t d = call.d, rows = call.batch * d, matrices = rows * d;
  const bool covariance = call.has("covariances"), shared = call.has("shared_p"), gradients = !call.forward();
  const int64_t one = shared ? 1 : call.batch;
  const op::Arguments<float> args{.batch = call.batch,
                                  .d = d,
                                  .loc_q = {t.zeros(rows), d},
                                  .loc_p = {t.zeros(one * d), shared ? 0 : d},
                                  .matrix_q = {t.identities(call.batch, d), d * d},
                                  .matrix_p = {t.identities(one, d), shared ? 0 : d * d},
                                  .upstream = {gradients ? t.zeros(call.batch) : nullptr, 1},
                                  .covariance_q = covariance,
                                  .covariance_p = covariance,
                                  .shared_loc_p = shared,
                                  .shared_matrix_p = shared,
                                  .value = t.zeros(call.batch),
                                  .grad_loc_q = t.wanted(gradients, rows),
                                  .grad_loc_p = t.wanted(gradients, one * d),
                                  .grad_matrix_q = t.wanted(gradients, matrices),
                                  .grad_matrix_p = t.wanted(gradients, one * d * d)};
  op::cuda::run(args, t.zeros(op::cuda::scratch(args)), {});
}

void ancestral_sample(const Call& call, Tensors& t) {
  namespace op = cvf::ancestral_sample;
  const int64_t d = call.d, rows = call.batch * d;
  const bool shared = call.has("shared_jac");
  const int64_t square = shared ? 0 : d * d, matrices = (shared ? 1 : call.batch) * d * d;
  op::Equations<float> equations{.batch = call.batch, .d = d, .jac = {t.zeros(matrices), square}, .shared_jac = shared};
  if (call.has("quadratic")) equations.quadratic = {t.zeros(matrices), square};
  if (call.forward()) {
    op::Forward<float> args{.equations = equations, .noise = {t.zeros(rows), d}, .offset = t.zeros(d)};
    args.z = t.zeros(rows);
    op::cuda::forward(args, {});
    return;
  }
  const op::Backward<float> args{.equations = equations,
                                 .z = {t.zeros(rows), d},
                                 .upstream = {t.zeros(rows), d},
                                 .grad_noise = t.zeros(rows),
                                 .grad_jac = t.zeros(matrices),
                                 .grad_quadratic = t.wanted(call.has("quadratic"), matrices),
                                 .grad_offset = t.zeros(d)};
  op::cuda::backward(args, t.zeros(op::cuda::backward_scratch(args)), {});
}

void mlp_ancestral_sample(const Call& call, Tensors& t) {
  namespace op = cvf::ancestral_sample::mlp;
  const int64_t d = call.d, h = call.hidden, rows = call.batch * d;
  const op::Equations<float> equations{.batch = call.batch,
                                       .d = d,
                                       .hidden = h,
                                       .w_in = t.zeros(d * h * d),
                                       .b_in = t.zeros(d * h),
                                       .w_out = t.zeros(d * h),
                                       .b_out = t.zeros(d),
                                       .edges = t.zeros(d * d)};
  if (call.forward()) {
    op::Forward<float> args{.equations = equations, .noise = {t.zeros(rows), d}};
    args.z = t.zeros(rows);
    op::cuda::forward(args, t.zeros(op::cuda::forward_scratch(args)), {});
    return;
  }
  const op::Backward<float> args{.equations = equations,
                                 .z = {t.zeros(rows), d},
                                 .upstream = {t.zeros(rows), d},
                                 .grad_noise = t.zeros(rows),
                                 .grad_w_in = t.zeros(d * h * d),
                                 .grad_b_in = t.zeros(d * h),
                                 .grad_w_out = t.zeros(d * h),
                                 .grad_b_out = t.zeros(d),
                                 .grad_edges = t.zeros(d * d)};
  op::cuda::backward(args, t.zeros(op::cuda::backward_scratch(args)), {});
}

void carry_out(const Call& call) {
  Tensors tensors(call.runs);
  if (call.op == "propagate") return propagate(call, tensors);
  if (call.op == "gaussian_kl") return gaussian_kl(call, tensors);
  if (call.op == "ancestral_sample") return ancestral_sample(call, tensors);
  if (call.op == "mlp_ancestral_sample") return mlp_ancestral_sample(call, tensors);
  throw std::invalid_argument("no such op: " + call.op);
}

Call read(const std::string& line) {
  std::istringstream words(line);
  Call call;
  std::string mode, option;
  if (!(words >> call.op >> call.pass >> call.batch >> call.d >> call.hidden >> mode))
    throw std::invalid_argument("not a call: " + line);
  call.runs = mode == "run";
  while (words >> option) call.options.insert(option);
  return call;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const Call call = read(line);
    cvf::cuda::Block::first_block = call.runs ? 0 : std::numeric_limits<uint32_t>::max();
    cvf::traffic::begin_call();
    carry_out(call);
    const char* separator = "[";
    for (const auto& l : cvf::traffic::end_call()) {
      std::printf(
          "%s{\"kernel\": \"%s\", \"blocks\": %ld, \"threads\": %ld, \"shared_bytes\": %ld, \"dram\": %ld, "
          "\"l2\": %ld, \"shared\": %ld, \"conflict_free\": %ld, \"barriers\": %ld, \"round_trips\": %ld, "
          "\"exchanges\": %ld}",
          separator, l.kernel.c_str(), l.blocks, l.threads, l.shared_bytes, l.dram, l.l2, l.shared, l.conflict_free,
          l.barriers, l.round_trips, l.exchanges);
      separator = ", ";
    }
    std::puts("]");
    std::fflush(stdout);
  }
}
