#include "bindings/ops/ancestral_sample.h"

#include "bindings/arguments.h"

namespace cvf::bindings {
namespace {

void ancestral_sample_forward(Tensor noise, Tensor jac, Tensor quadratic, Tensor offset, Tensor do_mask,
                              Tensor do_values, Tensor z, int threads, std::string_view isa) {
  with_type_of(noise, [&]<class T>() {
    const auto arguments = ancestral_forward_arguments<T>(noise, jac, quadratic, offset, do_mask, do_values, z);
    const bool has_memory = arguments.equations.jac && arguments.equations.do_mask && arguments.noise &&
                            arguments.offset && arguments.do_values && arguments.z;
    if (arguments.equations.batch > 0 && !has_memory) throw std::invalid_argument("a tensor has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::forward<T>(arguments, threads, chosen);
  });
}

void ancestral_sample_backward(Tensor jac, Tensor quadratic, Tensor do_mask, Tensor do_values, Tensor z,
                               Tensor upstream, Tensor grad_noise, Tensor grad_jac, Tensor grad_quadratic,
                               Tensor grad_offset, Tensor grad_values, int threads, std::string_view isa) {
  with_type_of(z, [&]<class T>() {
    const auto arguments = ancestral_backward_arguments<T>(jac, quadratic, do_mask, do_values, z, upstream, grad_noise,
                                                           grad_jac, grad_quadratic, grad_offset, grad_values);
    const bool has_memory = arguments.equations.jac && arguments.equations.do_mask && arguments.z && arguments.upstream;
    if (arguments.equations.batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::backward<T>(arguments, threads, chosen);
  });
}

// Without a batch, parameters are read too.
template <class T>
bool have_memory(const ancestral_sample::mlp::Equations<T>& e) {
  return e.w_in && e.b_in && e.w_out && e.b_out && e.edges && (e.batch == 0 || e.do_mask);
}

void mlp_ancestral_sample_forward(std::string_view activation, Tensor noise, Tensor w_in, Tensor b_in, Tensor w_out,
                                  Tensor b_out, Tensor edges, Tensor do_mask, Tensor do_values, Tensor z, int threads,
                                  std::string_view isa) {
  with_type_of(noise, [&]<class T>() {
    const auto arguments =
        mlp_forward_arguments<T>(activation, noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values, z);
    const bool of_samples = arguments.equations.batch == 0 || (arguments.noise && arguments.do_values && arguments.z);
    if (!have_memory(arguments.equations) || !of_samples) throw std::invalid_argument("a tensor has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::mlp::forward<T>(arguments, threads, chosen);
  });
}

void mlp_ancestral_sample_backward(std::string_view activation, Tensor w_in, Tensor b_in, Tensor w_out, Tensor b_out,
                                   Tensor edges, Tensor do_mask, Tensor do_values, Tensor z, Tensor upstream,
                                   Tensor grad_noise, Tensor grad_w_in, Tensor grad_b_in, Tensor grad_w_out,
                                   Tensor grad_b_out, Tensor grad_edges, Tensor grad_values, int threads,
                                   std::string_view isa) {
  with_type_of(z, [&]<class T>() {
    const auto arguments =
        mlp_backward_arguments<T>(activation, w_in, b_in, w_out, b_out, edges, do_mask, do_values, z, upstream,
                                  grad_noise, grad_w_in, grad_b_in, grad_w_out, grad_b_out, grad_edges, grad_values);
    const bool of_samples = arguments.equations.batch == 0 || (arguments.z && arguments.upstream);
    if (!have_memory(arguments.equations) || !of_samples) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::mlp::backward<T>(arguments, threads, chosen);
  });
}

}  // namespace

void bind_ancestral_sample(pybind11::module_& module) {
  define<&ancestral_sample_forward>(module, "ancestral_sample");
  define<&ancestral_sample_backward>(module, "ancestral_sample_backward");
  define<&mlp_ancestral_sample_forward>(module, "mlp_ancestral_sample");
  define<&mlp_ancestral_sample_backward>(module, "mlp_ancestral_sample_backward");
}

}  // namespace cvf::bindings
