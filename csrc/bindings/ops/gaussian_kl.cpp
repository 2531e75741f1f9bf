#include "bindings/ops/gaussian_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

// The value, and the gradients that are wanted, which are shaped as the inputs.
void gaussian_kl(Tensor loc_q, Tensor loc_p, Tensor matrix_q, Tensor matrix_p, bool covariance_q, bool covariance_p,
                 Tensor upstream, Tensor value, Tensor grad_loc_q, Tensor grad_loc_p, Tensor grad_matrix_q,
                 Tensor grad_matrix_p, int threads, std::string_view isa) {
  with_type_of(loc_q, [&]<class T>() {
    const auto arguments =
        gaussian_kl_arguments<T>(loc_q, loc_p, matrix_q, matrix_p, covariance_q, covariance_p, upstream, value,
                                 grad_loc_q, grad_loc_p, grad_matrix_q, grad_matrix_p);
    const bool has_memory = arguments.loc_q && arguments.loc_p && arguments.matrix_q && arguments.matrix_p;
    if (arguments.batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    cvf::gaussian_kl::run<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_gaussian_kl(pybind11::module_& module) { define<&gaussian_kl>(module, "gaussian_kl"); }

}  // namespace cvf::bindings
