#include "ops/gaussian_kl/gaussian_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

// The value, and the gradients that are wanted, which are shaped as the inputs.
void gaussian_kl(Tensor loc_q, Tensor loc_p, Tensor matrix_q, Tensor matrix_p, bool covariance_q, bool covariance_p,
                 Tensor upstream, Tensor value, Tensor grad_loc_q, Tensor grad_loc_p, Tensor grad_matrix_q,
                 Tensor grad_matrix_p, int threads, std::string_view isa) {
  with_type_of(loc_q, [&]<class T>() {
    const cvf::gaussian_kl::Arguments<T> arguments{
        .batch = loc_q.size(0),
        .d = loc_q.size(1),
        .loc_q = loc_q.rows<T>(1),
        .loc_p = loc_p.rows<T>(1),
        .matrix_q = matrix_q.rows<T>(2),
        .matrix_p = matrix_p.rows<T>(2),
        .upstream = upstream.rows<T>(0),
        .covariance_q = covariance_q,
        .covariance_p = covariance_p,
        .shared_loc_p = loc_p.dims() == 1,
        .shared_matrix_p = matrix_p.dims() == 2,
        .value = value.output<T>(),
        .grad_loc_q = grad_loc_q.output<T>(),
        .grad_loc_p = grad_loc_p.output<T>(),
        .grad_matrix_q = grad_matrix_q.output<T>(),
        .grad_matrix_p = grad_matrix_p.output<T>(),
    };
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
