#include "ops/gaussian_kl/gaussian_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

template <class T>
void gaussian_kl(int64_t batch, int64_t d, const StridedAddress& loc_q, const StridedAddress& loc_p, bool shared_loc_p,
                 const StridedAddress& matrix_q, bool covariance_q, const StridedAddress& matrix_p, bool covariance_p,
                 bool shared_matrix_p, const StridedAddress& upstream, Address value, Address grad_loc_q,
                 Address grad_loc_p, Address grad_matrix_q, Address grad_matrix_p, int threads,
                 const std::string& isa) {
  const cvf::gaussian_kl::Arguments<T> arguments{
      .batch = batch,
      .d = d,
      .loc_q = batched<T>(loc_q),
      .loc_p = batched<T>(loc_p),
      .matrix_q = batched<T>(matrix_q),
      .matrix_p = batched<T>(matrix_p),
      .upstream = batched<T>(upstream),
      .covariance_q = covariance_q,
      .covariance_p = covariance_p,
      .shared_loc_p = shared_loc_p,
      .shared_matrix_p = shared_matrix_p,
      .value = pointer<T>(value),
      .grad_loc_q = pointer<T>(grad_loc_q),
      .grad_loc_p = pointer<T>(grad_loc_p),
      .grad_matrix_q = pointer<T>(grad_matrix_q),
      .grad_matrix_p = pointer<T>(grad_matrix_p),
  };
  const bool has_memory = arguments.loc_q && arguments.loc_p && arguments.matrix_q && arguments.matrix_p;
  if (batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
  const Isa chosen = isa_named(isa);
  pybind11::gil_scoped_release release;
  cvf::gaussian_kl::run<T>(arguments, threads, chosen);
}

}  // namespace

void bind_gaussian_kl(pybind11::module_& module) {
  module.def("gaussian_kl_float32", &gaussian_kl<float>);
  module.def("gaussian_kl_float64", &gaussian_kl<double>);
}

}  // namespace cvf::bindings
