"""`mlp_sem_kl` in PyTorch, and what its inputs may be: layouts, what is not read, NaN, wrong arguments."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from checks import same_bits
from covering import each_meeting
from fused_checks import as_tuple, check_in_pytorch, everything, fresh_compiler
from inputs import DTYPES
from mlp_sem_kl_inputs import POSTERIORS, MLPSEMInputs, mlp_sem_inputs, op_for, truth
from tolerances import RELATIVE, value_error
from torch import Tensor

from causalvae_fast import ops
from causalvae_fast.ops import mlp_sem_kl, pack_tril
from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops.mlp_sem_kl.autograd import mlp_sem_kl_ops

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


# In PyTorch.


@pytest.mark.parametrize(("activation", "posterior"), list(zip(ACTIVATIONS, POSTERIORS, strict=False)))
def test_in_pytorch(activation: str, posterior: str) -> None:
    """For each posterior: what the ops do about PyTorch does not depend on the activation."""
    inputs = mlp_sem_inputs(3, 3, 2, posterior).laid_out(posterior)
    check_in_pytorch(op_for(activation, posterior), inputs, symbolic=activation == "tanh")


@each_activation
@each_posterior
def test_gradcheck(posterior: str, activation: str) -> None:
    op = op_for(activation, posterior)
    small, large = (mlp_sem_inputs(2, d, 9, posterior).laid_out(posterior).leaves() for d in (3, 40))
    assert torch.autograd.gradgradcheck(op, tuple(small), fast_mode=True)
    assert torch.autograd.gradcheck(op, tuple(large), fast_mode=True)


def test_public_function() -> None:
    inputs = mlp_sem_inputs(17, 5)
    for posterior in POSTERIORS:
        given = mlp_sem_inputs(17, 5, 9, posterior).laid_out(posterior)
        for activation in ACTIVATIONS:
            expected = op_for(activation, posterior)(*given)
            assert torch.equal(given.call(posterior, activation=activation, validate_args=True), expected)
            reference = given.call(posterior, activation=activation, backend="reference")
            assert torch.allclose(reference, expected, rtol=1e-12)
    assert torch.equal(inputs.call("diagonal"), op_for("tanh", "diagonal")(*inputs))
    assert set(ops.backends()["mlp_sem_kl"]) == {"reference", "cpu", "triton"}


@each_posterior
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_shapes_tell(batch: int, d: int, posterior: str) -> None:
    """Also where B equals d, or a packed matrix has as many numbers as there are nodes."""
    inputs = mlp_sem_inputs(batch, d, 3, posterior)
    expected = truth("tanh", inputs, torch.ones(batch))
    value = inputs.laid_out(posterior).call(posterior, validate_args=True)
    assert expected.value_error(value) <= RELATIVE[torch.float64]


def test_compiled_public_function() -> None:
    inputs = mlp_sem_inputs(17, 5, 3, dtype=torch.float32)
    with fresh_compiler():
        compiled = torch.compile(mlp_sem_kl, fullgraph=True, backend="aot_eager")
        for activation, reduction in itertools.product(("tanh", "silu"), ("none", "mean")):
            options: dict[str, Any] = {"activation": activation, "reduction": reduction}
            found = compiled(*inputs[:8], scale=inputs.factor, **options)
            assert torch.equal(found, inputs.call("diagonal", **options))


def test_autocast() -> None:
    inputs = mlp_sem_inputs(3, 4).map(Tensor.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = inputs.call("diagonal")
    assert torch.equal(value, inputs.map(Tensor.float).call("diagonal"))


@each_meeting(reduction=("mean", "sum"), batch=(1, 17, 100), posterior=POSTERIORS, dtype=DTYPES)
def test_reduction(reduction: str, batch: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(batch, 6, 5, posterior, dtype)
    upstream = torch.full((batch,), -1.5 / (batch if reduction == "mean" else 1), dtype=dtype)
    expected = truth("softplus", inputs, upstream)
    leaves = inputs.laid_out(posterior).leaves()
    value = leaves.call(posterior, activation="softplus", reduction=reduction)
    known, terms = (getattr(t, reduction)() for t in (expected.value, expected.terms))
    assert value.shape == ()
    assert value_error(value.detach(), known, terms) <= RELATIVE[dtype]
    gradients = torch.autograd.grad(-1.5 * value, leaves)
    for name, error in expected.gradient_errors(gradients, posterior).items():
        assert error <= RELATIVE[dtype], f"gradient of {name}: {error:.1e}"


@each_posterior
def test_empty_batch(posterior: str) -> None:
    leaves = mlp_sem_inputs(0, 3, 2, posterior).laid_out(posterior).leaves()
    assert leaves.call(posterior).shape == (0,)
    assert leaves.call(posterior, reduction="mean").isnan()  # like Tensor.mean
    total = leaves.call(posterior, reduction="sum")
    assert total == 0
    assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(total, leaves))


# What may not be read, and NaN.


@each_meeting(2, d=(1, 5, 17, 40, 80), posterior=POSTERIORS, dtype=DTYPES)
def test_what_is_no_parent_is_ignored(d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(17, d, 5, posterior, dtype)
    op = op_for("tanh", posterior)
    found = everything(op, inputs.where_not_read(math.nan).laid_out(posterior))
    assert same_bits(found, everything(op, inputs.laid_out(posterior)))


@each_meeting(sample=(0, 9, 16), number=(math.nan, math.inf), d=(5, 40, 80), posterior=POSTERIORS, dtype=DTYPES)
def test_nan_stays_in_its_sample(sample: int, number: float, d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(17, d, 5, posterior, dtype).laid_out(posterior)
    op = op_for("silu", posterior)
    clean = everything(op, inputs)
    others = [b for b in range(17) if b != sample]
    for k in (0, 7, 8):
        spoilt = inputs[k].clone()
        spoilt[sample].view(-1)[0] = number
        found = everything(op, MLPSEMInputs(*(spoilt if i == k else t for i, t in enumerate(inputs))))
        assert not found[0][sample].isfinite()
        for result in (0, 1, 8, 9):  # the value, and the gradients of pivot, loc and factor
            assert torch.equal(found[result][others], clean[result][others])


# Wrong arguments.


def ones(*shape: int, **options: Any) -> Tensor:
    return torch.ones(shape, dtype=torch.float64, **options)


VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "loc_vector": ({"loc": ones(3)}, r"loc must have shape \(B, d\), got \(3,\)"),
    "pivot_size": ({"pivot": ones(3, 3)}, r"pivot must have shape \(4, 3\), got \(3, 3\)"),
    "w_in_matrix": ({"w_in": ones(3, 3)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 3\)"),
    "w_in_size": ({"w_in": ones(3, 2, 4)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 2, 4\)"),
    "no_units": ({"w_in": ones(3, 0, 3)}, r"w_in must have shape \(3, h, 3\) with h >= 1, got \(3, 0, 3\)"),
    "b_in_size": ({"b_in": ones(3, 4)}, r"b_in must have shape \(3, 2\), got \(3, 4\)"),
    "w_out_size": ({"w_out": ones(2, 3)}, r"w_out must have shape \(3, 2\), got \(2, 3\)"),
    "b_out_size": ({"b_out": ones(2)}, r"b_out must have shape \(3,\), got \(2,\)"),
    "edges_size": ({"edges": ones(4, 3, 3)}, r"edges must have shape \(3, 3\), got \(4, 3, 3\)"),
    "log_sigma_size": ({"log_sigma": ones(1)}, r"log_sigma must have shape \(3,\), got \(1,\)"),
    "scale_size": ({"scale": ones(3)}, r"scale must have shape \(4, 3\), got \(3,\)"),
    "scale_tril_size": (
        {"scale": None, "scale_tril": ones(4, 5)},
        r"scale_tril must have shape \(4, 3, 3\) or \(4, 6\), got \(4, 5\)",
    ),
    "no_scale": ({"scale": None}, "give exactly one of scale and scale_tril"),
    "two_scales": ({"scale_tril": ones(4, 6)}, "give exactly one of scale and scale_tril"),
    "negative_scale": ({"scale": -ones(4, 3), "validate_args": True}, r"scale must be above 0, got -1.0"),
    "negative_scale_tril": (
        {"scale": None, "scale_tril": pack_tril(-ones(4, 3, 3)), "validate_args": True},
        r"scale_tril must be above 0, got -1.0",
    ),
    "activation": (
        {"activation": "relu"},
        "activation must be one of tanh, silu, softplus, leaky_relu, got 'relu'",
    ),
    "reduction": ({"reduction": "max"}, "reduction must be"),
    "device": ({"w_in": ones(3, 2, 3, device="meta")}, "w_in is on meta, but loc is on cpu"),
    "backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'"),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "w_in_none": ({"w_in": None}, "w_in must be a tensor, got NoneType"),
    "loc_integer": ({"loc": ones(4, 3).long()}, "loc must be float32 or float64, got torch.int64"),
    "edges_boolean": ({"edges": ones(3, 3).bool()}, "edges has dtype torch.bool, but loc has"),
    "b_out_dtype": ({"b_out": ones(3).float()}, "b_out has dtype torch.float32, but loc has"),
    "scale_number": ({"scale": 1.0}, "scale must be a tensor, got float"),
}


def call(**changes: Any) -> Tensor:
    given = mlp_sem_inputs(4, 3, 2)._asdict()
    given["scale"] = given.pop("factor")
    return mlp_sem_kl(**(given | changes))


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**changes)


def test_dtypes() -> None:
    for (_, packed), op in mlp_sem_kl_ops.items():
        posterior = "packed" if packed else "diagonal"
        for dtype in DTYPES:
            inputs = mlp_sem_inputs(3, 4, 2, posterior, dtype).laid_out(posterior)
            assert [t.dtype for t in as_tuple(op(*inputs))] == [dtype]
            assert {t.dtype for t in everything(op, inputs)} == {dtype}
