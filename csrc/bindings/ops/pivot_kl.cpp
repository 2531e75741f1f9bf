#include "ops/pivot_kl/pivot_kl.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

// With a tensor `upstream`, the gradients that are wanted, shaped as the inputs; `value` and `index` are then read.
void pivot_kl(Tensor jac, Tensor offset, Tensor log_sigma, Tensor loc, Tensor factor, int reduction, Tensor upstream,
              Tensor value, Tensor index, Tensor grad_jac, Tensor grad_offset, Tensor grad_log_sigma, Tensor grad_loc,
              Tensor grad_factor, int threads, std::string_view isa) {
  with_type_of(loc, [&]<class T>() {
    using cvf::pivot_kl::Reduction;
    const auto reduced = static_cast<Reduction>(reduction);
    const bool full = factor.dims() == 3;
    const Batched<T> factors = factor.rows<T>(full ? 2 : 1);
    const cvf::pivot_kl::Arguments<T> arguments{
        .batch = loc.size(0),
        .pivots = jac.size(0),
        .d = loc.size(1),
        .jac = jac.rows<T>(2),
        .offset = offset.rows<T>(1),
        .log_sigma = log_sigma.row<T>(),
        .loc = loc.rows<T>(1),
        .scale = full ? Batched<T>{} : factors,
        .scale_tril = full ? factors : Batched<T>{},
        .reduction = reduced,
        .upstream = upstream.rows<T>(reduced == Reduction::kNone ? 1 : 0),
        .value = value.output<T>(),
        .index = index.output<int64_t>(),
        .grad_jac = grad_jac.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_log_sigma = grad_log_sigma.output<T>(),
        .grad_loc = grad_loc.output<T>(),
        .grad_scale = full ? nullptr : grad_factor.output<T>(),
        .grad_scale_tril = full ? grad_factor.output<T>() : nullptr,
    };
    const bool shared = arguments.jac && arguments.offset && arguments.log_sigma;
    const bool has_memory = shared && arguments.loc && factors;
    if (!shared || (arguments.batch > 0 && !has_memory)) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    cvf::pivot_kl::run<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_pivot_kl(pybind11::module_& module) { define<&pivot_kl>(module, "pivot_kl"); }

}  // namespace cvf::bindings
