"""`mlp_sem_kl` in Triton, run by its interpreter on the CPU: shapes of test_mlp_sem_kl.py, and what is its own."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from checks import each_dtype, same_bits
from inputs import upstream_gradient
from mlp_sem_kl_inputs import EDGES, POSTERIORS, MLPSEMInputs, mlp_sem_inputs, op_for, truth
from tolerances import RELATIVE, value_error
from torch import Tensor
from triton_checks import needs_interpreter, tensor_core_products

import causalvae_fast as cvf
from causalvae_fast.ops._activations import ACTIVATIONS

pytestmark = needs_interpreter

ALL = (True,) * 9
FIXED_EDGES = tuple(k != EDGES for k in range(9))

# The interpreter takes milliseconds for each tile of each node. (d, batch, hidden)
CASES = [(1, 1, 1), (2, 17, 3), (3, 0, 9), (5, 17, 9), (16, 3, 17), (17, 1, 2), (33, 2, 3)]
DTYPES = (torch.float64, torch.float32)

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend("triton"):
        yield


def kernel(
    activation: str, inputs: MLPSEMInputs, posterior: str, **options: Any
) -> tuple[Tensor, list[Tensor | None]]:
    from causalvae_fast.ops.mlp_sem_kl.triton_kernel import mlp_sem_kl_triton

    packed = posterior == "packed"
    return mlp_sem_kl_triton(activation, *inputs.laid_out(posterior), packed_scale_tril=packed, **options)


def check(
    activation: str, inputs: MLPSEMInputs, posterior: str, wanted: Sequence[bool] = ALL, *, alone: bool = False
) -> None:
    """Value and gradients, and with `alone` the value without gradients."""
    dtype = inputs.loc.dtype
    upstream = upstream_gradient(len(inputs.loc), dtype)
    expected = truth(activation, inputs, upstream)
    value, found = kernel(activation, inputs, posterior, upstream=upstream, wanted=wanted)
    assert [g is not None for g in found] == list(wanted)
    memory = [g.untyped_storage().data_ptr() for g in found if g is not None and g.numel() > 0]
    assert len(set(memory)) == len(memory), "gradients share memory, which torch.library forbids"
    assert {value.dtype} | {g.dtype for g in found if g is not None} == {dtype}
    assert expected.value_error(value) <= RELATIVE[dtype]
    for name, error in expected.gradient_errors(found, posterior).items():
        assert error <= RELATIVE[dtype], f"gradient of {name}: {error:.1e}"
    if alone:
        assert torch.equal(kernel(activation, inputs, posterior)[0], value)


def full_or_diagonal(posterior: str) -> str:
    return "diagonal" if posterior == "diagonal" else "full"


@pytest.mark.parametrize("number", range(3), ids=POSTERIORS)
@pytest.mark.parametrize(("d", "batch", "hidden"), CASES, ids=lambda n: str(n))
def test_reference(d: int, batch: int, hidden: int, number: int) -> None:
    """Each shape in both dtypes, for one posterior or another."""
    posterior, dtype = POSTERIORS[number], DTYPES[(d + number) % 2]
    activation = ("tanh", "silu", "softplus")[d % 3]
    check(
        activation, mlp_sem_inputs(batch, d, hidden, full_or_diagonal(posterior), dtype), posterior, alone=d < 20
    )


@each_dtype
@each_activation
@pytest.mark.parametrize("posterior", ["diagonal", "packed"])
def test_activations(posterior: str, activation: str, dtype: torch.dtype) -> None:
    check(activation, mlp_sem_inputs(2, 3, 5, full_or_diagonal(posterior), dtype, scale=3.0), posterior)


@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus"])
def test_units_that_are_saturated(activation: str) -> None:
    for scale in (1e-3, 30.0):
        check(activation, mlp_sem_inputs(3, 3, 4, dtype=torch.float32, scale=scale), "diagonal")


@pytest.mark.parametrize(("posterior", "hidden"), [("diagonal", 65), ("packed", 33)])
def test_more_units_than_a_tile_has(posterior: str, hidden: int) -> None:
    check("silu", mlp_sem_inputs(3, 4, hidden, full_or_diagonal(posterior)), posterior)


@each_posterior
def test_each_gradient_alone(posterior: str) -> None:
    inputs = mlp_sem_inputs(2, 3, 2, full_or_diagonal(posterior))
    for k in range(9):
        check("silu", inputs, posterior, tuple(i == k for i in range(9)))


@each_posterior
def test_batch_in_chunks_tiles_and_blocks(posterior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second chunk, whose sums are added to those of the first; several tiles for each sum; one block."""
    from causalvae_fast.ops.mlp_sem_kl import triton_kernel

    inputs = mlp_sem_inputs(70, 3, 2, full_or_diagonal(posterior))
    for chunk, programs in ((8 * 6 * 40, 528), (1 << 24, 2)):
        monkeypatch.setattr(triton_kernel, "CHUNK", chunk)
        monkeypatch.setattr(triton_kernel, "PROGRAMS", programs)
        check("tanh", inputs, posterior)


def with_closed_edges(inputs: MLPSEMInputs) -> MLPSEMInputs:
    """A band of parents for each node, none for some, single closed edges inside."""
    d = len(inputs.edges)
    i, j = torch.arange(d)[:, None], torch.arange(d)
    kept = (j >= i - 2) & (i % 5 != 0) & ((i + j) % 3 != 0)
    return inputs._replace(edges=inputs.edges * kept)


@pytest.mark.parametrize(
    ("posterior", "wanted"),
    [("diagonal", FIXED_EDGES), ("packed", FIXED_EDGES), ("diagonal", ALL)],
    ids=["diagonal-edges_fixed", "packed-edges_fixed", "diagonal-edges_learned"],
)
def test_closed_edges(posterior: str, wanted: Sequence[bool]) -> None:
    check("tanh", with_closed_edges(mlp_sem_inputs(2, 37, 3, full_or_diagonal(posterior))), posterior, wanted)


def test_weights_before_the_first_open_edge_are_not_read_unless_the_edges_learn() -> None:
    inputs = with_closed_edges(mlp_sem_inputs(1, 37, 1))
    spoilt = inputs.w_in.clone()
    spoilt[36, :, :32] = math.nan
    options: dict[str, Any] = {"upstream": torch.ones(1).double(), "wanted": FIXED_EDGES}
    value, found = kernel("silu", inputs._replace(w_in=spoilt), "diagonal", **options)
    clean, clean_found = kernel("silu", inputs, "diagonal", **options)
    assert same_bits([value, *found], [clean, *clean_found])


@each_posterior
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduction(reduction: str, posterior: str) -> None:
    inputs = mlp_sem_inputs(3, 4, 2, full_or_diagonal(posterior))
    upstream = torch.full((3,), -1.5 / (3 if reduction == "mean" else 1), dtype=torch.float64)
    expected = truth("tanh", inputs, upstream)
    leaves = inputs.laid_out(posterior).leaves()
    value = leaves.call(posterior, reduction=reduction)
    known, terms = (getattr(t, reduction)() for t in (expected.value, expected.terms))
    assert value_error(value.detach(), known, terms) <= RELATIVE[torch.float64]
    gradients = torch.autograd.grad(-1.5 * value, leaves)
    for name, error in expected.gradient_errors(gradients, posterior).items():
        assert error <= RELATIVE[torch.float64], f"gradient of {name}: {error:.1e}"


@each_posterior
def test_empty_batch(posterior: str) -> None:
    leaves = mlp_sem_inputs(0, 3, 2, full_or_diagonal(posterior)).laid_out(posterior).leaves()
    total = leaves.call(posterior, reduction="sum")
    assert total == 0
    assert leaves.call(posterior, reduction="mean").isnan()
    assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("posterior", ["diagonal", "packed"])
def test_float32_on_tensor_cores(posterior: str) -> None:
    """Products for gradients, in three passes, are within the tolerance of float32."""
    used: set[str] = set()
    with tensor_core_products(used):
        check("tanh", mlp_sem_inputs(2, 20, 9, full_or_diagonal(posterior), torch.float32), posterior)
    assert "TF32x3" in used
    assert "TF32" not in used


@each_posterior
def test_layouts(posterior: str) -> None:
    """What may not be read, gaps between elements, and a sample that is expanded."""
    inputs, ones = mlp_sem_inputs(3, 5, 2, full_or_diagonal(posterior)), torch.ones(3).double()
    options: dict[str, Any] = {"upstream": ones, "wanted": ALL}
    value, found = kernel("tanh", inputs, posterior, **options)
    gaps = inputs.map(lambda t: torch.stack((t, torch.full_like(t, math.nan)), -1)[..., 0])
    for other in (inputs.where_not_read(math.nan), gaps):
        again, found_again = kernel("tanh", other, posterior, **options)
        assert same_bits([value, *found], [again, *found_again])
    first = inputs.samples(slice(0, 1)).laid_out(posterior)
    expanded = MLPSEMInputs(*(t.expand(3, *t.shape[1:]) if k in (0, 7, 8) else t for k, t in enumerate(first)))
    op = op_for("tanh", posterior).kernels["triton"]
    assert same_bits(op.forward(*expanded), op.forward(*expanded.map(Tensor.contiguous)))


@pytest.mark.parametrize("posterior", ["diagonal", "packed"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_nan_stays_in_its_sample(number: float, posterior: str) -> None:
    inputs = mlp_sem_inputs(3, 5, 3, full_or_diagonal(posterior)).laid_out(posterior)
    forward, backward, _ = op_for("silu", posterior).kernels["triton"]
    upstream = [torch.ones(3).double()]
    clean, clean_found = forward(*inputs)[0], backward(upstream, inputs, (), ALL)
    for k in (0, 7, 8):
        spoilt = inputs[k].clone()
        spoilt[1].view(-1)[0] = number
        given = MLPSEMInputs(*(spoilt if i == k else t for i, t in enumerate(inputs)))
        value, found = forward(*given)[0], backward(upstream, given, (), ALL)
        assert value.isfinite().tolist() == [True, False, True]
        assert torch.equal(value[[0, 2]], clean[[0, 2]])
        for result in (0, 7, 8):
            gradient, before = found[result], clean_found[result]
            assert gradient is not None
            assert before is not None
            assert torch.equal(gradient[[0, 2]], before[[0, 2]])


def test_too_many_latents() -> None:
    row = torch.zeros(1, 40_000)
    wide = row.expand(40_000, 40_000)
    given = MLPSEMInputs(row, wide[:, None], wide[:, :1], wide[:, :1], row[0], wide, row[0], row, row)
    with pytest.raises(ValueError, match="at most 32768 latents for the backend 'triton', got 40000"):
        kernel("tanh", given, "diagonal")
