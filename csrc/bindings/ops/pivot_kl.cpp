#include "ops/pivot_kl/pivot_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

template <class T>
void pivot_kl(int64_t batch, int64_t pivots, int64_t d, const StridedAddress& jac, const StridedAddress& offset,
              Address log_sigma, const StridedAddress& loc, const StridedAddress& scale,
              const StridedAddress& scale_tril, int reduction, const StridedAddress& upstream, Address value,
              Address index, Address grad_jac, Address grad_offset, Address grad_log_sigma, Address grad_loc,
              Address grad_factor, int threads, const std::string& isa) {
  const bool full = std::get<0>(scale_tril) != 0;
  const cvf::pivot_kl::Arguments<T> arguments{
      .batch = batch,
      .pivots = pivots,
      .d = d,
      .jac = batched<T>(jac),
      .offset = batched<T>(offset),
      .log_sigma = pointer<const T>(log_sigma),
      .loc = batched<T>(loc),
      .scale = batched<T>(scale),
      .scale_tril = batched<T>(scale_tril),
      .reduction = static_cast<cvf::pivot_kl::Reduction>(reduction),
      .upstream = batched<T>(upstream),
      .value = pointer<T>(value),
      .index = pointer<int64_t>(index),
      .grad_jac = pointer<T>(grad_jac),
      .grad_offset = pointer<T>(grad_offset),
      .grad_log_sigma = pointer<T>(grad_log_sigma),
      .grad_loc = pointer<T>(grad_loc),
      .grad_scale = full ? nullptr : pointer<T>(grad_factor),
      .grad_scale_tril = full ? pointer<T>(grad_factor) : nullptr,
  };
  const bool shared = arguments.jac && arguments.offset && arguments.log_sigma;
  const bool has_memory = shared && arguments.loc && (arguments.scale || arguments.scale_tril);
  if (!shared || (batch > 0 && !has_memory)) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  cvf::pivot_kl::run<T>(arguments, threads, chosen);
}

}  // namespace

void bind_pivot_kl(pybind11::module_& module) {
  module.def("pivot_kl_float32", &pivot_kl<float>);
  module.def("pivot_kl_float64", &pivot_kl<double>);
}

}  // namespace cvf::bindings
