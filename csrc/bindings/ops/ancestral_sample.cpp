#include "ops/ancestral_sample/ancestral_sample.h"

#include "bindings/arguments.h"

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

}  // namespace

void bind_ancestral_sample(pybind11::module_& module) {
  module.def("ancestral_sample_float32", &ancestral_sample_forward<float>);
  module.def("ancestral_sample_float64", &ancestral_sample_forward<double>);
  module.def("ancestral_sample_backward_float32", &ancestral_sample_backward<float>);
  module.def("ancestral_sample_backward_float64", &ancestral_sample_backward<double>);
}

}  // namespace cvf::bindings
