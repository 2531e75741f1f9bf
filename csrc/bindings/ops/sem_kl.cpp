#include "ops/sem_kl/sem_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

// Of `value` and `total`, and of the gradients, which are shaped as the inputs, those that are wanted. Without a tensor
// `upstream`, all samples have the gradient `known_upstream`.
void sem_kl(Tensor jac, Tensor offset, Tensor log_sigma, Tensor loc, Tensor factor, bool packed_jac,
            bool packed_scale_tril, Tensor upstream, double known_upstream, Tensor value, Tensor total, Tensor grad_jac,
            Tensor grad_offset, Tensor grad_log_sigma, Tensor grad_loc, Tensor grad_factor, int threads,
            std::string_view isa) {
  with_type_of(loc, [&]<class T>() {
    const bool full = packed_scale_tril || factor.dims() == 3;
    const int jac_dims = packed_jac ? 1 : 2, factor_dims = packed_scale_tril || !full ? 1 : 2;
    const T known = static_cast<T>(known_upstream);
    const Batched<T> factors = factor.rows<T>(factor_dims);
    const cvf::sem_kl::Arguments<T> arguments{
        .batch = loc.size(0),
        .d = loc.size(1),
        .jac = jac.rows<T>(jac_dims),
        .offset = offset.rows<T>(1),
        .log_sigma = log_sigma.row<T>(),
        .loc = loc.rows<T>(1),
        .scale = full ? Batched<T>{} : factors,
        .scale_tril = full ? factors : Batched<T>{},
        .upstream = upstream ? upstream.rows<T>(0) : Batched<T>{&known, 0},
        .packed_jac = packed_jac,
        .packed_scale_tril = packed_scale_tril,
        .shared_jac = jac.dims() == jac_dims,
        .shared_offset = offset.dims() == 1,
        .value = value.output<T>(),
        .total = total.output<T>(),
        .grad_jac = grad_jac.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_log_sigma = grad_log_sigma.output<T>(),
        .grad_loc = grad_loc.output<T>(),
        .grad_scale = full ? nullptr : grad_factor.output<T>(),
        .grad_scale_tril = full ? grad_factor.output<T>() : nullptr,
    };
    const bool has_memory = arguments.jac && arguments.offset && arguments.log_sigma && arguments.loc && factors;
    if (arguments.batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    cvf::sem_kl::run<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_sem_kl(pybind11::module_& module) { define<&sem_kl>(module, "sem_kl"); }

}  // namespace cvf::bindings
