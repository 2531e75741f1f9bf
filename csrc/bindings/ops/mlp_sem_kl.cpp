#include "ops/mlp_sem_kl/mlp_sem_kl.h"

#include "bindings/activation.h"
#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

// Of `value` and `total`, and of the gradients, which are shaped as the inputs, those that are wanted. Without a tensor
// `upstream`, all samples have the gradient `known_upstream`.
void mlp_sem_kl(std::string_view activation, Tensor pivot, Tensor w_in, Tensor b_in, Tensor w_out, Tensor b_out,
                Tensor edges, Tensor log_sigma, Tensor loc, Tensor factor, bool packed_scale_tril, Tensor upstream,
                double known_upstream, Tensor value, Tensor total, Tensor grad_pivot, Tensor grad_w_in,
                Tensor grad_b_in, Tensor grad_w_out, Tensor grad_b_out, Tensor grad_edges, Tensor grad_log_sigma,
                Tensor grad_loc, Tensor grad_factor, int threads, std::string_view isa) {
  with_type_of(loc, [&]<class T>() {
    const bool full = packed_scale_tril || factor.dims() == 3;
    const T known = static_cast<T>(known_upstream);
    const Batched<T> factors = factor.rows<T>(packed_scale_tril || !full ? 1 : 2);
    const cvf::mlp_sem_kl::Arguments<T> arguments{
        .batch = loc.size(0),
        .d = loc.size(1),
        .hidden = w_in.size(1),
        .activation = activation_named(activation),
        .pivot = pivot.rows<T>(1),
        .w_in = w_in.row<T>(),
        .b_in = b_in.row<T>(),
        .w_out = w_out.row<T>(),
        .b_out = b_out.row<T>(),
        .edges = edges.row<T>(),
        .log_sigma = log_sigma.row<T>(),
        .loc = loc.rows<T>(1),
        .scale = full ? Batched<T>{} : factors,
        .scale_tril = full ? factors : Batched<T>{},
        .upstream = upstream ? upstream.rows<T>(0) : Batched<T>{&known, 0},
        .packed_scale_tril = packed_scale_tril,
        .value = value.output<T>(),
        .total = total.output<T>(),
        .grad_pivot = grad_pivot.output<T>(),
        .grad_w_in = grad_w_in.output<T>(),
        .grad_b_in = grad_b_in.output<T>(),
        .grad_w_out = grad_w_out.output<T>(),
        .grad_b_out = grad_b_out.output<T>(),
        .grad_edges = grad_edges.output<T>(),
        .grad_log_sigma = grad_log_sigma.output<T>(),
        .grad_loc = grad_loc.output<T>(),
        .grad_scale = full ? nullptr : grad_factor.output<T>(),
        .grad_scale_tril = full ? grad_factor.output<T>() : nullptr,
    };
    const auto& a = arguments;
    const bool parameters = a.w_in && a.b_in && a.w_out && a.b_out && a.edges && a.log_sigma;
    if (!parameters || (a.batch > 0 && !(a.pivot && a.loc && factors))) {
      throw std::invalid_argument("an input has no memory");
    }
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    cvf::mlp_sem_kl::run<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_mlp_sem_kl(pybind11::module_& module) { define<&mlp_sem_kl>(module, "mlp_sem_kl"); }

}  // namespace cvf::bindings
