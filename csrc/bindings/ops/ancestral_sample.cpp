#include "ops/ancestral_sample/ancestral_sample.h"

#include <array>

#include "bindings/arguments.h"
#include "ops/ancestral_sample/mlp.h"

namespace cvf::bindings {
namespace {

template <class T>
ancestral_sample::Equations<T> equations(int64_t batch, int64_t d, const StridedAddress& jac,
                                         const StridedAddress& quadratic, bool shared_jac,
                                         const StridedAddress& do_mask) {
  return {.batch = batch,
          .d = d,
          .jac = batched<T>(jac),
          .quadratic = batched<T>(quadratic),
          .shared_jac = shared_jac,
          .do_mask = batched<uint8_t>(do_mask)};
}

template <class T>
void ancestral_sample_forward(int64_t batch, int64_t d, const StridedAddress& jac, const StridedAddress& quadratic,
                              bool shared_jac, const StridedAddress& do_mask, const StridedAddress& noise,
                              Address offset, const StridedAddress& do_values, Address z, int threads,
                              const std::string& isa) {
  const ancestral_sample::Forward<T> arguments{
      .equations = equations<T>(batch, d, jac, quadratic, shared_jac, do_mask),
      .noise = batched<T>(noise),
      .offset = pointer<const T>(offset),
      .do_values = batched<T>(do_values),
      .z = pointer<T>(z),
  };
  const bool has_memory =
      arguments.equations.jac && arguments.equations.do_mask && arguments.noise && offset && arguments.do_values && z;
  if (batch > 0 && !has_memory) throw std::invalid_argument("a tensor has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  ancestral_sample::forward<T>(arguments, threads, chosen);
}

template <class T>
void ancestral_sample_backward(int64_t batch, int64_t d, const StridedAddress& jac, const StridedAddress& quadratic,
                               bool shared_jac, const StridedAddress& do_mask, const StridedAddress& z,
                               const StridedAddress& upstream, bool shared_values, Address grad_noise, Address grad_jac,
                               Address grad_quadratic, Address grad_offset, Address grad_values, int threads,
                               const std::string& isa) {
  const ancestral_sample::Backward<T> arguments{
      .equations = equations<T>(batch, d, jac, quadratic, shared_jac, do_mask),
      .z = batched<T>(z),
      .upstream = batched<T>(upstream),
      .shared_values = shared_values,
      .grad_noise = pointer<T>(grad_noise),
      .grad_jac = pointer<T>(grad_jac),
      .grad_quadratic = pointer<T>(grad_quadratic),
      .grad_offset = pointer<T>(grad_offset),
      .grad_values = pointer<T>(grad_values),
  };
  const bool has_memory = arguments.equations.jac && arguments.equations.do_mask && arguments.z && arguments.upstream;
  if (batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  ancestral_sample::backward<T>(arguments, threads, chosen);
}

Activation activation_named(const std::string& name) {
  if (name == "tanh") return Activation::kTanh;
  if (name == "silu") return Activation::kSilu;
  if (name == "softplus") return Activation::kSoftplus;
  if (name == "leaky_relu") return Activation::kLeakyRelu;
  throw std::invalid_argument("there is no activation '" + name + "'");
}

template <class T>
ancestral_sample::mlp::Equations<T> mlp_equations(int64_t batch, int64_t d, int64_t hidden,
                                                  const std::string& activation,
                                                  const std::array<Address, 5>& parameters,
                                                  const StridedAddress& do_mask) {
  const auto& [w_in, b_in, w_out, b_out, edges] = parameters;
  return {.batch = batch,
          .d = d,
          .hidden = hidden,
          .activation = activation_named(activation),
          .w_in = pointer<const T>(w_in),
          .b_in = pointer<const T>(b_in),
          .w_out = pointer<const T>(w_out),
          .b_out = pointer<const T>(b_out),
          .edges = pointer<const T>(edges),
          .do_mask = batched<uint8_t>(do_mask)};
}

// Without a batch, parameters are read too.
template <class T>
bool have_memory(const ancestral_sample::mlp::Equations<T>& e) {
  return e.w_in && e.b_in && e.w_out && e.b_out && e.edges && (e.batch == 0 || e.do_mask);
}

template <class T>
void mlp_ancestral_sample_forward(int64_t batch, int64_t d, int64_t hidden, const std::string& activation,
                                  const std::array<Address, 5>& parameters, const StridedAddress& do_mask,
                                  const StridedAddress& noise, const StridedAddress& do_values, Address z, int threads,
                                  const std::string& isa) {
  const ancestral_sample::mlp::Forward<T> arguments{
      .equations = mlp_equations<T>(batch, d, hidden, activation, parameters, do_mask),
      .noise = batched<T>(noise),
      .do_values = batched<T>(do_values),
      .z = pointer<T>(z),
  };
  const bool of_samples = batch == 0 || (arguments.noise && arguments.do_values && z);
  if (!have_memory(arguments.equations) || !of_samples) throw std::invalid_argument("a tensor has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  ancestral_sample::mlp::forward<T>(arguments, threads, chosen);
}

// `gradients` are those of noise, w_in, b_in, w_out, b_out, edges and do_values.
template <class T>
void mlp_ancestral_sample_backward(int64_t batch, int64_t d, int64_t hidden, const std::string& activation,
                                   const std::array<Address, 5>& parameters, const StridedAddress& do_mask,
                                   const StridedAddress& z, const StridedAddress& upstream, bool shared_values,
                                   const std::array<Address, 7>& gradients, int threads, const std::string& isa) {
  const ancestral_sample::mlp::Backward<T> arguments{
      .equations = mlp_equations<T>(batch, d, hidden, activation, parameters, do_mask),
      .z = batched<T>(z),
      .upstream = batched<T>(upstream),
      .shared_values = shared_values,
      .grad_noise = pointer<T>(gradients[0]),
      .grad_w_in = pointer<T>(gradients[1]),
      .grad_b_in = pointer<T>(gradients[2]),
      .grad_w_out = pointer<T>(gradients[3]),
      .grad_b_out = pointer<T>(gradients[4]),
      .grad_edges = pointer<T>(gradients[5]),
      .grad_values = pointer<T>(gradients[6]),
  };
  const bool of_samples = batch == 0 || (arguments.z && arguments.upstream);
  if (!have_memory(arguments.equations) || !of_samples) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  ancestral_sample::mlp::backward<T>(arguments, threads, chosen);
}

}  // namespace

void bind_ancestral_sample(pybind11::module_& module) {
  module.def("ancestral_sample_float32", &ancestral_sample_forward<float>);
  module.def("ancestral_sample_float64", &ancestral_sample_forward<double>);
  module.def("ancestral_sample_backward_float32", &ancestral_sample_backward<float>);
  module.def("ancestral_sample_backward_float64", &ancestral_sample_backward<double>);
  module.def("mlp_ancestral_sample_float32", &mlp_ancestral_sample_forward<float>);
  module.def("mlp_ancestral_sample_float64", &mlp_ancestral_sample_forward<double>);
  module.def("mlp_ancestral_sample_backward_float32", &mlp_ancestral_sample_backward<float>);
  module.def("mlp_ancestral_sample_backward_float64", &mlp_ancestral_sample_backward<double>);
}

}  // namespace cvf::bindings
