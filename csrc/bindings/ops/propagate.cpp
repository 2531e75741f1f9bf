#include "ops/propagate/propagate.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

void propagate_forward(Tensor jac, Tensor offset, Tensor log_sigma, Tensor loc, Tensor scale_tril, int threads,
                       std::string_view isa) {
  with_type_of(jac, [&]<class T>() {
    const propagate::Forward<T> arguments{
        .batch = loc.dims() == 2 ? loc.size(0) : 1,
        .d = log_sigma.size(0),
        .jac = jac.rows<T>(2),
        .offset = offset.rows<T>(1),
        .log_sigma = log_sigma.row<T>(),
        .shared_jac = jac.dims() == 2,
        .loc = loc.output<T>(),
        .scale_tril = scale_tril.output<T>(),
    };
    const bool has_memory =
        arguments.jac && arguments.offset && arguments.log_sigma && arguments.loc && arguments.scale_tril;
    if (arguments.batch > 0 && !has_memory) throw std::invalid_argument("a tensor has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    propagate::forward<T>(arguments, threads, chosen);
  });
}

void propagate_backward(Tensor jac, Tensor offset, Tensor log_sigma, Tensor loc, Tensor scale_tril, Tensor upstream_loc,
                        Tensor upstream_scale_tril, Tensor grad_jac, Tensor grad_offset, Tensor grad_log_sigma,
                        int threads, std::string_view isa) {
  with_type_of(jac, [&]<class T>() {
    const propagate::Backward<T> arguments{
        .batch = loc.dims() == 2 ? loc.size(0) : 1,
        .d = log_sigma.size(0),
        .jac = jac.rows<T>(2),
        .log_sigma = log_sigma.row<T>(),
        .loc = loc.rows<T>(1),
        .scale_tril = scale_tril.rows<T>(2),
        .upstream_loc = upstream_loc.rows<T>(1),
        .upstream_scale_tril = upstream_scale_tril.rows<T>(2),
        .shared_jac = jac.dims() == 2,
        .shared_offset = offset.dims() == 1,
        .grad_jac = grad_jac.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_log_sigma = grad_log_sigma.output<T>(),
    };
    const bool has_memory = arguments.jac && arguments.log_sigma && arguments.loc && arguments.scale_tril &&
                            arguments.upstream_loc && arguments.upstream_scale_tril;
    if (arguments.batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    propagate::backward<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_propagate(pybind11::module_& module) {
  define<&propagate_forward>(module, "propagate");
  define<&propagate_backward>(module, "propagate_backward");
}

}  // namespace cvf::bindings
