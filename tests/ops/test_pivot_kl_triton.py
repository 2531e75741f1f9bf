"""`pivot_kl` in Triton, run by its interpreter on the CPU: the grid of test_pivot_kl.py, and what is its own."""

import math
from collections.abc import Iterator

import pytest
import torch
from checks import each_dtype, each_posterior, same_bits
from covering import each_meeting
from fused_checks import check_kernels
from inputs import DTYPES, POSTERIORS, SEMInputs
from pivot_inputs import (
    ALL,
    call,
    check_gradients,
    check_value,
    each_reduction,
    first,
    pivot_inputs,
    true_pivot_kl,
    upstream_for,
)
from torch import Tensor
from triton_checks import needs_interpreter, tensor_core_products

import causalvae_fast as cvf
from causalvae_fast.ops import pivot_kl
from causalvae_fast.ops.pivot_kl.autograd import pivot_kl_ops
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS

pytestmark = needs_interpreter

# The interpreter takes milliseconds for each tile of each pair.
# (d, batch, pivots)
CASES = [(1, 3, 2), (2, 0, 3), (3, 1, 1), (5, 2, 3), (16, 1, 2), (17, 2, 1), (33, 1, 2), (100, 1, 1)]
GROUPS = [(1, 17, 3), (5, 40, 2)]  # of samples with diagonal posteriors, not whole ones
EACH_KERNEL = (5, 33)


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend("triton"):
        yield


def kernel(inputs: SEMInputs, reduce: str, upstream: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Value, index and all gradients."""
    from causalvae_fast.ops.pivot_kl.triton_kernel import pivot_kl_triton, pivot_kl_triton_backward

    value, index, _ = pivot_kl_triton(*inputs, reduce=reduce)
    found = pivot_kl_triton_backward(
        *inputs, reduce=reduce, upstream=upstream, value=value, index=index, wanted=ALL
    )
    return value, index, found


@each_meeting(shape=CASES, posterior=POSTERIORS, reduce=REDUCTIONS, dtype=DTYPES)
def test_reference(shape: tuple[int, int, int], posterior: str, reduce: str, dtype: torch.dtype) -> None:
    check(*shape, posterior, reduce, dtype)


@each_dtype
@each_reduction
@pytest.mark.parametrize(("d", "batch", "pivots"), GROUPS, ids=lambda n: str(n))
def test_groups_of_samples(d: int, batch: int, pivots: int, reduce: str, dtype: torch.dtype) -> None:
    check(d, batch, pivots, "diagonal", reduce, dtype)


def check(d: int, batch: int, pivots: int, posterior: str, reduce: str, dtype: torch.dtype) -> None:
    inputs = pivot_inputs(batch, pivots, d, posterior, dtype)
    upstream = upstream_for(inputs, reduce)
    expected, expected_gradients = true_pivot_kl(inputs, reduce, upstream)
    value, index, found = kernel(inputs, reduce, upstream)
    check_value(value, expected, inputs, reduce)
    check_gradients(found, expected_gradients, inputs, reduce)
    if index is not None:
        assert torch.equal(value, kernel(inputs, "none", upstream_for(inputs, "none"))[0].amin(1))
        assert torch.equal(index, pivot_kl_ops["min"].reference(*inputs)[1])


@each_reduction
@each_posterior
def test_pivots_in_several_parts(posterior: str, reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gradients in several parts of the batch."""
    from causalvae_fast.ops.pivot_kl import triton_kernel

    monkeypatch.setattr(triton_kernel, "PROGRAMS", 10)
    monkeypatch.setattr(triton_kernel, "CHUNK", 3 * 4 * 6)
    inputs = pivot_inputs(4, 6, 4, posterior)
    upstream = upstream_for(inputs, reduce)
    expected, expected_gradients = true_pivot_kl(inputs, reduce, upstream)
    value, _, found = kernel(inputs, reduce, upstream)
    check_value(value, expected, inputs, reduce)
    check_gradients(found, expected_gradients, inputs, reduce)


@each_posterior
def test_each_gradient_alone(posterior: str) -> None:
    inputs = pivot_inputs(3, 2, 5, posterior)
    for reduce in REDUCTIONS:
        upstream = upstream_for(inputs, reduce)
        expected = true_pivot_kl(inputs, reduce, upstream)[1]
        for k in range(5):
            leaves = inputs.leaves([i == k for i in range(5)])
            first(call(pivot_kl, leaves, reduce=reduce)).backward(upstream)
            check_gradients([leaf.grad for leaf in leaves], expected, inputs, reduce)


@each_dtype
@each_posterior
def test_small_residuals_far_from_zero(posterior: str, dtype: torch.dtype) -> None:
    """With products as tensor cores compute them, to which those of residuals are not left."""
    d, generator = 33, torch.Generator().manual_seed(0)
    inputs = pivot_inputs(2, 2, d, posterior, dtype)
    jac = torch.randint(-2, 3, (2, d, d), generator=generator).to(dtype).tril(-1) / 3
    loc = torch.randint(90_000, 110_000, (1, d), generator=generator).to(dtype)
    offset = (loc[0].double() - jac.double() @ loc[0].double() - 2.0**-4).to(dtype)
    hard = SEMInputs(jac, offset, torch.full((d,), -3.0, dtype=dtype), loc.expand(2, d), 1e-2 * inputs.factor)
    exact = hard.map(Tensor.double)
    residual = exact.loc[:1, None] - torch.einsum("kij,bj->bki", exact.jac, exact.loc[:1]) - exact.offset
    with tensor_core_products():
        value = kernel(hard, "none", upstream_for(hard, "none"))[0].double()
    without = kernel(exact, "none", upstream_for(exact, "none"))[0]
    # Each residual is off by the rounding of W loc - b at most, a few eps |W| |loc|.
    eps = torch.finfo(dtype).eps * (exact.jac.abs() @ exact.loc[0].abs() + exact.loc[0].abs())
    bound = (math.exp(6) * (residual.abs()[0] * 4 * eps + (4 * eps).square())).sum(-1)
    assert ((value - without).abs() <= bound + 1e-5 * without.abs()).all()


@each_meeting(2, d=EACH_KERNEL, posterior=POSTERIORS, reduce=REDUCTIONS)
def test_nan_stays_in_its_sample(d: int, posterior: str, reduce: str) -> None:
    inputs = pivot_inputs(3, 2, d, posterior)
    upstream = upstream_for(inputs, reduce)
    clean, _, clean_gradients = kernel(inputs, reduce, upstream)
    for k in (3, 4):
        changed = [t.clone() for t in inputs]
        changed[k][(1, d - 1, 0)[: changed[k].dim()]] = math.nan
        value, _, found = kernel(SEMInputs(*changed), reduce, upstream)
        assert value[1].isnan().all()
        assert torch.equal(value[[0, 2]], clean[[0, 2]])
        for gradient, before in zip(found[3:], clean_gradients[3:], strict=True):
            assert gradient is not None
            assert before is not None
            torch.testing.assert_close(gradient[[0, 2]], before[[0, 2]])


@each_reduction
def test_a_pivot_that_is_nan_or_infinite(reduce: str) -> None:
    inputs = pivot_inputs(4, 3, 5)
    for number in (math.nan, 1e200):
        for every in (False, True):
            offset = inputs.offset.clone()
            offset[slice(None) if every else 1, 2] = number
            changed = inputs._replace(offset=offset)
            found, expected = (call(pivot_kl, changed, reduce=reduce, backend=b) for b in ("triton", "reference"))
            torch.testing.assert_close(found, expected, equal_nan=True)


@each_posterior
def test_layouts(posterior: str) -> None:
    inputs = pivot_inputs(3, 2, 5, posterior, torch.float32)
    gaps = inputs.map(lambda t: torch.stack((t, torch.full_like(t, math.nan)), -1)[..., 0])
    upper = torch.ones(5, 5, dtype=torch.bool).triu()
    gaps = gaps._replace(jac=gaps.jac.masked_fill(upper, math.nan))
    for reduce in REDUCTIONS:
        upstream = upstream_for(inputs, reduce)
        alone, again = (kernel(x, reduce, upstream) for x in (inputs, gaps))
        assert same_bits([*alone[:2], *alone[2]], [*again[:2], *again[2]])


def test_in_pytorch() -> None:
    check_kernels(pivot_kl_ops["min"], pivot_inputs(2, 2, 3, "diagonal"), symbolic=False)
