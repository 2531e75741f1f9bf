"""`mlp_ancestral_sample`: against the reference and mpmath, in PyTorch, on NaN and on wrong arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from checks import BATCHES, ISAS, SIZES, each_dtype, same_bits
from covering import each_meeting
from fused_checks import as_tuple, check_in_pytorch, everything, leaves
from inputs import DTYPES, SHARING
from mlp_inputs import BELOW_DIAGONAL, MLPInputs, gradient_errors, mlp_inputs, terms, truth
from mpmath import mp
from test_ancestral_sample import INTERVENTIONS, ones
from tolerances import RELATIVE, value_error
from torch import Tensor

from causalvae_fast.ops import backends, mlp_ancestral_sample
from causalvae_fast.ops.ancestral_sample.autograd import mlp_ops
from causalvae_fast.ops.ancestral_sample.mlp_cpu import mlp_backward_cpu, mlp_cpu

each_activation = pytest.mark.parametrize("activation", mlp_ops)


def check_value(z: Tensor, expected: Tensor, activation: str, inputs: MLPInputs, case: str = "") -> None:
    assert z.dtype == inputs.noise.dtype
    error = value_error(z, expected, terms(activation, inputs))
    assert error <= RELATIVE[z.dtype], f"{case}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor | None], inputs: MLPInputs, case: str = ""
) -> None:
    found = dict(zip(inputs._fields, gradients, strict=True))
    mask = inputs.do_mask.expand_as(inputs.noise)
    noise, values = found["noise"], found["do_values"]
    if noise is not None:
        assert noise[mask].count_nonzero() == 0
    if values is not None and inputs.do_values.dim() == 2:
        assert values[~mask].count_nonzero() == 0
    for name in BELOW_DIAGONAL:
        gradient = found[name]
        if gradient is not None:
            assert gradient.reshape(len(gradient), -1, len(gradient)).movedim(1, 0).triu().count_nonzero() == 0
    for name, error in gradient_errors(gradients, expected, inputs).items():
        assert error <= RELATIVE[inputs.noise.dtype], f"gradient of {name} {case}: {error:.1e}"


def check_kernels(activation: str, inputs: MLPInputs) -> None:
    """Both directions with each instruction set, against the reference."""
    expected, upstream, expected_gradients = truth(activation, inputs)
    for isa in ISAS:
        (z,) = mlp_cpu(activation, *inputs, isa=isa)
        check_value(z, expected, activation, inputs, isa)
        gradients = mlp_backward_cpu(activation, (upstream,), inputs, (z,), inputs.differentiable, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, activation=list(mlp_ops), do=INTERVENTIONS, dtype=DTYPES)
def test_reference(d: int, batch: int, activation: str, do: str, dtype: torch.dtype) -> None:
    check_kernels(activation, mlp_inputs(batch, d, do=do, dtype=dtype))


@each_meeting(2, hidden=(1, 2, 3, 7, 16, 64, 300), d=(1, 2, 17, 40), dtype=DTYPES)
def test_numbers_of_hidden_units(hidden: int, d: int, dtype: torch.dtype) -> None:
    check_kernels("tanh", mlp_inputs(33, d, hidden, dtype=dtype))


@each_dtype
@pytest.mark.parametrize("batch", [4, 8, 16, 31, 32, 33, 64, 127, 128, 129, 3000])
def test_sizes_of_the_batch(batch: int, dtype: torch.dtype) -> None:
    check_kernels("silu", mlp_inputs(batch, 5, dtype=dtype))


@each_dtype
@each_activation
@pytest.mark.parametrize("scale", [1e-3, 10.0, 1e3])
def test_units_near_zero_and_saturated(scale: float, activation: str, dtype: torch.dtype) -> None:
    check_kernels(activation, mlp_inputs(17, 3, scale=scale, dtype=dtype))


@each_activation
def test_each_subset_of_gradients(activation: str) -> None:
    inputs = mlp_inputs(17, 5)
    _, upstream, expected = truth(activation, inputs)
    for wanted in itertools.product((False, True), repeat=7):
        asked = [*wanted[:6], False, wanted[6]]
        leaves = [t.detach().clone().requires_grad_(a) for t, a in zip(inputs, asked, strict=True)]
        z = mlp_ops[activation](*leaves)
        if any(asked):
            z.backward(upstream)
        assert [leaf.grad is not None for leaf in leaves] == asked
        check_gradients([leaf.grad for leaf in leaves], expected, inputs, str(asked))


@pytest.mark.parametrize("threads", [2, 4])
def test_number_of_threads(threads: int) -> None:
    """Enough work for four threads, and blocks of unequal sizes."""
    torch.set_num_threads(threads)
    inputs = mlp_inputs(1001, 33, 16, dtype=torch.float32)
    expected, upstream, expected_gradients = truth("tanh", inputs)
    (z,) = mlp_cpu("tanh", *inputs)
    check_value(z, expected, "tanh", inputs)
    gradients = mlp_backward_cpu("tanh", (upstream,), inputs, (z,), inputs.differentiable)
    check_gradients(gradients, expected_gradients, inputs)
    again = mlp_backward_cpu("tanh", (upstream,), inputs, (z,), inputs.differentiable)
    assert same_bits(gradients, again), "two runs differ"


# Against independent truths.

SCALAR: dict[str, Callable[[Any], Any]] = {
    "tanh": mp.tanh,
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log(1 + mp.exp(x)),
    "leaky_relu": lambda x: max(x, x / 100),
}


@each_dtype
@each_activation
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_recurrence_against_mpmath(scale: float, activation: str, dtype: torch.dtype) -> None:
    """With large weights units saturate, and the error of a parent grows on its way to its children."""
    d, hidden = (12, 3) if scale == 1 else (3, 3)
    inputs = mlp_inputs(2, d, hidden, dtype=dtype, scale=scale)
    given = {name: t.tolist() for name, t in inputs._asdict().items()}
    phi, expected = SCALAR[activation], torch.empty(2, d, dtype=torch.float64)
    with mp.workdps(50):
        for n in range(2):
            z: list[Any] = []
            for i in range(d):
                own = mp.mpf(given["b_out"][i]) + mp.mpf(given["noise"][n][i])
                for k in range(hidden):
                    pre = mp.mpf(given["b_in"][i][k])
                    for j in range(i):
                        pre += mp.mpf(given["w_in"][i][k][j]) * mp.mpf(given["edges"][i][j]) * z[j]
                    own += mp.mpf(given["w_out"][i][k]) * phi(pre)
                z.append(mp.mpf(given["do_values"][n][i]) if given["do_mask"][n][i] else own)
            expected[n] = torch.tensor([float(x) for x in z], dtype=torch.float64)
    for isa in ISAS:
        check_value(mlp_cpu(activation, *inputs, isa=isa)[0], expected, activation, inputs, isa)


def test_without_edges_each_node_is_alone() -> None:
    inputs = mlp_inputs(17, 6)
    inputs = inputs._replace(edges=torch.zeros_like(inputs.edges), do_mask=torch.zeros(6, dtype=torch.bool))
    constant = (inputs.w_out * inputs.b_in.tanh()).sum(-1) + inputs.b_out
    check_value(mlp_ops["tanh"](*inputs), inputs.noise + constant, "tanh", inputs)


@each_activation
@pytest.mark.parametrize("do", SHARING)
def test_interventions(do: str, activation: str) -> None:
    """A replaced node has its value; nodes before it do not notice; its equation and noise play no part."""
    inputs = mlp_inputs(17, 6)
    op, values = mlp_ops[activation], torch.linspace(-1, 1, 6, dtype=torch.float64)
    without = op(*inputs._replace(do_mask=torch.zeros(6, dtype=torch.bool)))
    for node in range(6):
        mask = torch.arange(6) == node
        noise = inputs.noise.masked_fill(mask, math.nan)
        own = (17, 6) if do == "per_sample" else (6,)
        changed = inputs._replace(
            noise=noise, do_mask=mask.expand(own), do_values=values.masked_fill(~mask, math.nan).expand(own)
        )
        leaves = MLPInputs(*(t.clone().requires_grad_(t.is_floating_point()) for t in changed))
        z = op(*leaves)
        assert (z[:, node] == values[node]).all()
        assert torch.equal(z[:, :node], without[:, :node])
        assert not z.isnan().any()
        z[:, node].sum().backward()  # nothing comes through to what is before it
        gradients = {name: t.grad for name, t in leaves._asdict().items() if t.grad is not None}
        assert [name for name, gradient in gradients.items() if gradient.count_nonzero() > 0] == ["do_values"]


# In PyTorch.


@pytest.mark.parametrize(("activation", "do"), [("tanh", "shared"), ("silu", "per_sample")])
def test_in_pytorch(activation: str, do: str) -> None:
    """What the ops do about PyTorch does not depend on the activation."""
    check_in_pytorch(mlp_ops[activation], mlp_inputs(3, 4, 2, do), symbolic=activation == "tanh")


@each_activation
def test_gradcheck(activation: str) -> None:
    assert torch.autograd.gradgradcheck(mlp_ops[activation], leaves(mlp_inputs(3, 4, 2)), fast_mode=True)
    assert torch.autograd.gradcheck(mlp_ops[activation], leaves(mlp_inputs(2, 40)), fast_mode=True)


def test_public_function() -> None:
    inputs = mlp_inputs(17, 5)
    parameters, do = inputs[:5], {"do_mask": inputs.do_mask, "do_values": inputs.do_values}
    silu = mlp_ancestral_sample(*parameters, inputs.edges, activation="silu", **do)
    assert torch.equal(silu, mlp_ops["silu"](*inputs))
    ones_and_none = (torch.ones(5, 5).double(), torch.zeros(5, dtype=torch.bool), torch.zeros(5).double())
    assert torch.equal(mlp_ancestral_sample(*parameters), mlp_ops["tanh"](*parameters, *ones_and_none))
    reference = mlp_ancestral_sample(*parameters, inputs.edges, **do, backend="reference")
    assert torch.allclose(reference, mlp_ops["tanh"](*inputs), rtol=1e-12)
    assert backends()["mlp_ancestral_sample"].keys() == {"reference", "cpu", "cuda"}


def test_compiled_public_function() -> None:
    parameters = mlp_inputs(17, 5)[:5]
    torch._dynamo.reset()
    compiled = torch.compile(mlp_ancestral_sample, fullgraph=True, backend="aot_eager")
    for activation in mlp_ops:
        expected = mlp_ancestral_sample(*parameters, activation=activation)
        assert torch.equal(compiled(*parameters, activation=activation), expected)
    torch._dynamo.reset()


def test_autocast() -> None:
    parameters = [t.bfloat16() for t in mlp_inputs(3, 4)[:5]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = mlp_ancestral_sample(*parameters)
    assert torch.equal(z, mlp_ancestral_sample(*(t.float() for t in parameters)))


# What may not be read, and NaN.


@pytest.mark.parametrize("d", [1, 5, 17, 40])
def test_what_is_no_parent_is_ignored(d: int) -> None:
    inputs = mlp_inputs(17, d)
    found = everything(mlp_ops["tanh"], inputs.where_no_parent(math.nan))
    assert same_bits(found, everything(mlp_ops["tanh"], inputs))


@each_meeting(sample=(0, 9, 16), number=(math.nan, math.inf), d=(5, 40), activation=list(mlp_ops), dtype=DTYPES)
def test_nan_stays_in_its_sample(sample: int, number: float, d: int, activation: str, dtype: torch.dtype) -> None:
    inputs = mlp_inputs(17, d, dtype=dtype)
    inputs.do_mask[:, 0] = False
    inputs.do_mask[:, 1] = True
    clean = everything(mlp_ops[activation], inputs)
    others = [b for b in range(17) if b != sample]
    for name, node in (("noise", 0), ("do_values", 1)):
        spoilt = getattr(inputs, name).clone()
        spoilt[sample, node] = number
        found = everything(mlp_ops[activation], inputs._replace(**{name: spoilt}))
        assert not found[0][sample].isfinite().all()
        for k in (0, 1, 7):  # z, and the gradients of noise and values
            assert torch.equal(found[k][others], clean[k][others])


# Wrong arguments.

VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "noise_vector": ({"noise": ones(3)}, r"noise must have shape \(B, d\), got \(3,\)"),
    "w_in_matrix": ({"w_in": ones(3, 3)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 3\)"),
    "w_in_size": ({"w_in": ones(3, 2, 4)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 2, 4\)"),
    "no_units": ({"w_in": ones(3, 0, 3)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 0, 3\)"),
    "b_in_size": ({"b_in": ones(3, 4)}, r"b_in must have shape \(3, 2\), got \(3, 4\)"),
    "w_out_size": ({"w_out": ones(2, 3)}, r"w_out must have shape \(3, 2\), got \(2, 3\)"),
    "b_out_size": ({"b_out": ones(2)}, r"b_out must have shape \(3,\), got \(2,\)"),
    "edges_size": ({"edges": ones(4, 3, 3)}, r"edges must have shape \(3, 3\), got \(4, 3, 3\)"),
    "activation": (
        {"activation": "relu"},
        "activation must be one of tanh, silu, softplus, leaky_relu, got 'relu'",
    ),
    "mask_size": ({"do_mask": ones(4).bool()}, r"do_mask must have shape \(4, 3\) or \(3,\), got \(4,\)"),
    "values_size": ({"do_values": ones()}, r"do_values must have shape \(4, 3\) or \(3,\), got \(\)"),
    "values_missing": ({"do_values": None}, "give both or neither of do_mask and do_values, got only do_mask"),
    "device": ({"w_in": ones(3, 2, 3, device="meta")}, "w_in is on meta, but noise is on cpu"),
    "backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'"),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "w_in_none": ({"w_in": None}, "w_in must be a tensor, got NoneType"),
    "noise_integer": ({"noise": ones(4, 3).long()}, "noise must be float32 or float64, got torch.int64"),
    "edges_boolean": ({"edges": ones(3, 3).bool()}, "edges has dtype torch.bool, but noise has"),
    "b_out_dtype": ({"b_out": ones(3).float()}, "b_out has dtype torch.float32, but noise has"),
    "mask_numbers": ({"do_mask": ones(3)}, "do_mask must be dense and torch.bool, got .* torch.float64"),
}


def call(**changes: Any) -> Tensor:
    return mlp_ancestral_sample(**(mlp_inputs(4, 3, 2)._asdict() | changes))


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**changes)


def test_dtypes() -> None:
    for op, dtype in itertools.product(mlp_ops.values(), DTYPES):
        assert [t.dtype for t in as_tuple(op(*mlp_inputs(3, 4, dtype=dtype)))] == [dtype]
