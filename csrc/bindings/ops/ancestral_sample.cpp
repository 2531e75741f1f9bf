#include "ops/ancestral_sample/ancestral_sample.h"

#include "bindings/activation.h"
#include "bindings/arguments.h"
#include "ops/ancestral_sample/mlp.h"

namespace cvf::bindings {
namespace {

template <class T>
ancestral_sample::Equations<T> equations(const Tensor& z, Tensor& jac, Tensor& quadratic, Tensor& do_mask) {
  return {.batch = z.size(0),
          .d = z.size(1),
          .jac = jac.rows<T>(2),
          .quadratic = quadratic.rows<T>(2),
          .shared_jac = jac.dims() == 2,
          .do_mask = do_mask.mask_rows(1)};
}

void ancestral_sample_forward(Tensor noise, Tensor jac, Tensor quadratic, Tensor offset, Tensor do_mask,
                              Tensor do_values, Tensor z, int threads, std::string_view isa) {
  with_type_of(noise, [&]<class T>() {
    const ancestral_sample::Forward<T> arguments{
        .equations = equations<T>(z, jac, quadratic, do_mask),
        .noise = noise.rows<T>(1),
        .offset = offset.row<T>(),
        .do_values = do_values.rows<T>(1),
        .z = z.output<T>(),
    };
    const bool has_memory = arguments.equations.jac && arguments.equations.do_mask && arguments.noise &&
                            arguments.offset && arguments.do_values && arguments.z;
    if (arguments.equations.batch > 0 && !has_memory) throw std::invalid_argument("a tensor has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::forward<T>(arguments, threads, chosen);
  });
}

// The gradients that are wanted, shaped as the inputs.
void ancestral_sample_backward(Tensor jac, Tensor quadratic, Tensor do_mask, Tensor do_values, Tensor z,
                               Tensor upstream, Tensor grad_noise, Tensor grad_jac, Tensor grad_quadratic,
                               Tensor grad_offset, Tensor grad_values, int threads, std::string_view isa) {
  with_type_of(z, [&]<class T>() {
    const ancestral_sample::Backward<T> arguments{
        .equations = equations<T>(z, jac, quadratic, do_mask),
        .z = z.rows<T>(1),
        .upstream = upstream.rows<T>(1),
        .shared_values = do_values.dims() == 1,
        .grad_noise = grad_noise.output<T>(),
        .grad_jac = grad_jac.output<T>(),
        .grad_quadratic = grad_quadratic.output<T>(),
        .grad_offset = grad_offset.output<T>(),
        .grad_values = grad_values.output<T>(),
    };
    const bool has_memory = arguments.equations.jac && arguments.equations.do_mask && arguments.z && arguments.upstream;
    if (arguments.equations.batch > 0 && !has_memory) throw std::invalid_argument("an input has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::backward<T>(arguments, threads, chosen);
  });
}

template <class T>
ancestral_sample::mlp::Equations<T> mlp_equations(const Tensor& z, std::string_view activation, Tensor& w_in,
                                                  Tensor& b_in, Tensor& w_out, Tensor& b_out, Tensor& edges,
                                                  Tensor& do_mask) {
  return {.batch = z.size(0),
          .d = z.size(1),
          .hidden = w_in.size(1),
          .activation = activation_named(activation),
          .w_in = w_in.row<T>(),
          .b_in = b_in.row<T>(),
          .w_out = w_out.row<T>(),
          .b_out = b_out.row<T>(),
          .edges = edges.row<T>(),
          .do_mask = do_mask.mask_rows(1)};
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
    const ancestral_sample::mlp::Forward<T> arguments{
        .equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
        .noise = noise.rows<T>(1),
        .do_values = do_values.rows<T>(1),
        .z = z.output<T>(),
    };
    const bool of_samples = arguments.equations.batch == 0 || (arguments.noise && arguments.do_values && arguments.z);
    if (!have_memory(arguments.equations) || !of_samples) throw std::invalid_argument("a tensor has no memory");
    const Isa chosen = isa_named(isa);
    const pybind11::gil_scoped_release release;
    ancestral_sample::mlp::forward<T>(arguments, threads, chosen);
  });
}

// The gradients that are wanted, shaped as the inputs.
void mlp_ancestral_sample_backward(std::string_view activation, Tensor w_in, Tensor b_in, Tensor w_out, Tensor b_out,
                                   Tensor edges, Tensor do_mask, Tensor do_values, Tensor z, Tensor upstream,
                                   Tensor grad_noise, Tensor grad_w_in, Tensor grad_b_in, Tensor grad_w_out,
                                   Tensor grad_b_out, Tensor grad_edges, Tensor grad_values, int threads,
                                   std::string_view isa) {
  with_type_of(z, [&]<class T>() {
    const ancestral_sample::mlp::Backward<T> arguments{
        .equations = mlp_equations<T>(z, activation, w_in, b_in, w_out, b_out, edges, do_mask),
        .z = z.rows<T>(1),
        .upstream = upstream.rows<T>(1),
        .shared_values = do_values.dims() == 1,
        .grad_noise = grad_noise.output<T>(),
        .grad_w_in = grad_w_in.output<T>(),
        .grad_b_in = grad_b_in.output<T>(),
        .grad_w_out = grad_w_out.output<T>(),
        .grad_b_out = grad_b_out.output<T>(),
        .grad_edges = grad_edges.output<T>(),
        .grad_values = grad_values.output<T>(),
    };
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
