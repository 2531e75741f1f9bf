#include "ops/sem_kl/sem_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

template <class T>
void sem_kl(int64_t batch, int64_t d, const StridedAddress& jac, bool shared_jac, bool packed_jac,
            const StridedAddress& offset, bool shared_offset, Address log_sigma, const StridedAddress& loc,
            const StridedAddress& scale, const StridedAddress& scale_tril, bool packed_scale_tril,
            const StridedAddress& upstream, double known_upstream, Address value, Address total, Address grad_jac,
            Address grad_offset, Address grad_log_sigma, Address grad_loc, Address grad_scale, Address grad_scale_tril,
            int threads, const std::string& isa) {
  const T known = static_cast<T>(known_upstream);  // of all samples, where there is no tensor of them
  const cvf::sem_kl::Arguments<T> arguments{
      .batch = batch,
      .d = d,
      .jac = batched<T>(jac),
      .offset = batched<T>(offset),
      .log_sigma = pointer<const T>(log_sigma),
      .loc = batched<T>(loc),
      .scale = batched<T>(scale),
      .scale_tril = batched<T>(scale_tril),
      .upstream = std::get<0>(upstream) ? batched<T>(upstream) : Batched<T>{&known, 0},
      .packed_jac = packed_jac,
      .packed_scale_tril = packed_scale_tril,
      .shared_jac = shared_jac,
      .shared_offset = shared_offset,
      .value = pointer<T>(value),
      .total = pointer<T>(total),
      .grad_jac = pointer<T>(grad_jac),
      .grad_offset = pointer<T>(grad_offset),
      .grad_log_sigma = pointer<T>(grad_log_sigma),
      .grad_loc = pointer<T>(grad_loc),
      .grad_scale = pointer<T>(grad_scale),
      .grad_scale_tril = pointer<T>(grad_scale_tril),
  };
  const bool has_memory = arguments.jac && arguments.offset && arguments.log_sigma && arguments.loc &&
                          (arguments.scale || arguments.scale_tril);
  if (batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  cvf::sem_kl::run<T>(arguments, threads, chosen);
}

}  // namespace

void bind_sem_kl(pybind11::module_& module) {
  module.def("sem_kl_float32", &sem_kl<float>);
  module.def("sem_kl_float64", &sem_kl<double>);
}

}  // namespace cvf::bindings
