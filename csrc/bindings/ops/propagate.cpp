#include "bindings/ops/propagate.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

void propagate_forward(Tensor jac, Tensor offset, Tensor log_sigma, Tensor loc, Tensor scale_tril, int threads,
                       std::string_view isa) {
  with_type_of(jac, [&]<class T>() {
    const auto arguments = propagate_forward_arguments<T>(jac, offset, log_sigma, loc, scale_tril);
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
    const auto arguments = propagate_backward_arguments<T>(jac, offset, log_sigma, loc, scale_tril, upstream_loc,
                                                           upstream_scale_tril, grad_jac, grad_offset, grad_log_sigma);
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
