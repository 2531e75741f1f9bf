#include "ops/propagate/propagate.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

template <class T>
void propagate_forward(int64_t batch, int64_t d, const StridedAddress& jac, bool shared_jac,
                       const StridedAddress& offset, Address log_sigma, Address loc, Address scale_tril, int threads,
                       const std::string& isa) {
  const propagate::Forward<T> arguments{
      .batch = batch,
      .d = d,
      .jac = batched<T>(jac),
      .offset = batched<T>(offset),
      .log_sigma = pointer<const T>(log_sigma),
      .shared_jac = shared_jac,
      .loc = pointer<T>(loc),
      .scale_tril = pointer<T>(scale_tril),
  };
  const bool has_memory = arguments.jac && arguments.offset && log_sigma && loc && scale_tril;
  if (batch > 0 && !has_memory) throw std::invalid_argument("a tensor has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  propagate::forward<T>(arguments, threads, chosen);
}

template <class T>
void propagate_backward(int64_t batch, int64_t d, const StridedAddress& jac, bool shared_jac, bool shared_offset,
                        Address log_sigma, const StridedAddress& loc, const StridedAddress& scale_tril,
                        const StridedAddress& upstream_loc, const StridedAddress& upstream_scale_tril, Address grad_jac,
                        Address grad_offset, Address grad_log_sigma, int threads, const std::string& isa) {
  const propagate::Backward<T> arguments{
      .batch = batch,
      .d = d,
      .jac = batched<T>(jac),
      .log_sigma = pointer<const T>(log_sigma),
      .loc = batched<T>(loc),
      .scale_tril = batched<T>(scale_tril),
      .upstream_loc = batched<T>(upstream_loc),
      .upstream_scale_tril = batched<T>(upstream_scale_tril),
      .shared_jac = shared_jac,
      .shared_offset = shared_offset,
      .grad_jac = pointer<T>(grad_jac),
      .grad_offset = pointer<T>(grad_offset),
      .grad_log_sigma = pointer<T>(grad_log_sigma),
  };
  const bool has_memory = arguments.jac && log_sigma && arguments.loc && arguments.scale_tril &&
                          arguments.upstream_loc && arguments.upstream_scale_tril;
  if (batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  propagate::backward<T>(arguments, threads, chosen);
}

}  // namespace

void bind_propagate(pybind11::module_& module) {
  module.def("propagate_float32", &propagate_forward<float>);
  module.def("propagate_float64", &propagate_forward<double>);
  module.def("propagate_backward_float32", &propagate_backward<float>);
  module.def("propagate_backward_float64", &propagate_backward<double>);
}

}  // namespace cvf::bindings
