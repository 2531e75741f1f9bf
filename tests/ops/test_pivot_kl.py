"""`pivot_kl`: values and gradients on all shapes and instruction sets, in PyTorch, and at the op's limits."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from checks import BATCHES, ISAS, ONE_PER_KERNEL, SIZES, each_dtype, each_kernel, each_posterior, same_bits
from covering import each_meeting
from fused_checks import check_in_pytorch, check_layouts
from inputs import DTYPES, POSTERIORS, SEMInputs
from mpmath import mp
from pivot_inputs import (
    call,
    check_gradients,
    check_value,
    each_reduction,
    first,
    kernel,
    pivot_inputs,
    pivot_kl_terms,
    true_pivot_kl,
    upstream_for,
)
from test_sem_kl import textbook_kl
from tolerances import RELATIVE, value_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import backends, pivot_kl, sem_kl
from causalvae_fast.ops.pivot_kl.autograd import pivot_kl_ops
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS, pivot_kl_cpu

# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, posterior=POSTERIORS, reduce=REDUCTIONS, dtype=DTYPES)
def test_reference(d: int, batch: int, posterior: str, reduce: str, dtype: torch.dtype) -> None:
    for pivots in (1, 3, 20) if d < 100 else (3,):
        inputs = pivot_inputs(batch, pivots, d, posterior, dtype)
        upstream = upstream_for(inputs, reduce)
        expected, expected_gradients = true_pivot_kl(inputs, reduce, upstream)
        for isa in ISAS:
            value, index, gradients = kernel(inputs, reduce, upstream, isa)
            check_value(value, expected, inputs, reduce, isa)
            check_gradients(gradients, expected_gradients, inputs, reduce, isa)
            if index is not None:
                everything = pivot_kl_cpu(*inputs, reduce="none", isa=isa).value
                assert torch.equal(value, everything.gather(1, index[:, None]).squeeze(1))


@each_dtype
@each_reduction
@each_posterior
def test_sums_over_a_large_batch(posterior: str, reduce: str, dtype: torch.dtype) -> None:
    """More than a thread adds up before it goes on in double."""
    inputs = pivot_inputs(2500, 3, 6, posterior, dtype)
    upstream = upstream_for(inputs, reduce)
    expected, expected_gradients = true_pivot_kl(inputs, reduce, upstream)
    for isa in ISAS:
        value, _, gradients = kernel(inputs, reduce, upstream, isa)
        check_value(value, expected, inputs, reduce, isa)
        check_gradients(gradients, expected_gradients, inputs, reduce, isa)


@each_reduction
@each_posterior
def test_each_subset_of_gradients(posterior: str, reduce: str) -> None:
    inputs = pivot_inputs(17, 3, 5, posterior)
    upstream = upstream_for(inputs, reduce)
    expected = true_pivot_kl(inputs, reduce, upstream)[1]
    for wanted in itertools.product((False, True), repeat=5):
        leaves = inputs.leaves(wanted)
        value = first(call(pivot_kl, leaves, reduce=reduce))
        assert value.requires_grad == any(wanted)
        if value.requires_grad:
            value.backward(upstream)
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)
        check_gradients([leaf.grad for leaf in leaves], expected, inputs, reduce, str(wanted))


# Against an independent truth.


@each_posterior
@pytest.mark.parametrize("d", [1, 3, 6])
def test_values_against_mpmath(d: int, posterior: str) -> None:
    """Every divergence by the textbook formula in 50 digits, and the reductions of them."""
    inputs = pivot_inputs(3, 4, d, posterior)
    jac, offset, log_sigma, loc, factor = inputs
    L = factor.diag_embed() if posterior == "diagonal" else factor.tril()
    with mp.workdps(50):
        kl = [
            [
                textbook_kl(*(mp.matrix(t.tolist()) for t in (jac[k], offset[k], log_sigma, loc[b], L[b])))
                for k in range(4)
            ]
            for b in range(3)
        ]
        bounds = [-mp.log(mp.fsum(mp.exp(-x) for x in row) / 4) for row in kl]
        truth = {
            "none": torch.tensor([[float(x) for x in row] for row in kl], dtype=torch.float64),
            "min": torch.tensor([float(min(row)) for row in kl], dtype=torch.float64),
            "logsumexp": torch.tensor([float(x) for x in bounds], dtype=torch.float64),
        }
    for reduce, expected in truth.items():
        check_value(first(call(pivot_kl, inputs, reduce=reduce)), expected, inputs, reduce)
    index = call(pivot_kl, inputs, reduce="min")[1]
    assert index.tolist() == [row.index(min(row)) for row in kl]


@each_posterior
@pytest.mark.parametrize("d", [1, 5, 33])
def test_torch_distributions(d: int, posterior: str) -> None:
    inputs = pivot_inputs(17, 3, d, posterior)
    W = torch.eye(d, dtype=torch.float64) - inputs.jac.tril(-1)
    mean = torch.linalg.solve_triangular(W, inputs.offset.unsqueeze(-1), upper=False).squeeze(-1)
    noise = torch.exp(inputs.log_sigma).diag().expand_as(W)
    p = MultivariateNormal(mean, scale_tril=torch.linalg.solve_triangular(W, noise, upper=False))
    L = inputs.factor.diag_embed() if posterior == "diagonal" else inputs.factor.tril()
    q = MultivariateNormal(inputs.loc[:, None], scale_tril=L[:, None])
    check_value(call(pivot_kl, inputs), kl_divergence(q, p), inputs, "none")


@each_dtype
@each_posterior
@each_kernel
def test_each_pivot_is_a_sem_kl(d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = pivot_inputs(17, 3, d, posterior, dtype)
    columns = [
        call(sem_kl, inputs._replace(jac=jac, offset=offset))
        for jac, offset in zip(inputs.jac, inputs.offset, strict=True)
    ]
    check_value(call(pivot_kl, inputs), torch.stack(columns, 1), inputs, "none")


@each_posterior
def test_logsumexp_bounds_the_mixture(posterior: str) -> None:
    """Between the smallest divergence and log K above it, and log K above none for equal pivots."""
    inputs = pivot_inputs(17, 6, 5, posterior)
    smallest, bound = call(pivot_kl, inputs, reduce="min")[0], call(pivot_kl, inputs, reduce="logsumexp")
    assert (bound >= smallest).all()
    assert (bound <= smallest + math.log(6)).all()
    equal = inputs._replace(jac=inputs.jac[:1].expand(6, 5, 5), offset=inputs.offset[:1].expand(6, 5))
    expected = call(pivot_kl, equal, reduce="min")[0]
    torch.testing.assert_close(call(pivot_kl, equal, reduce="logsumexp"), expected)


# Where expanded squares fail: posteriors far from 0 whose residuals are nearly 0.


@each_dtype
@each_posterior
@pytest.mark.parametrize("d", [5, 33])
def test_small_residuals_far_from_zero(d: int, posterior: str, dtype: torch.dtype) -> None:
    """Offsets such that every residual is 2^-7, exactly, at a loc of about 10^3, and small integers in A: so are
    the residuals of the kernels, while in loc^T W^T D^-1 W loc - 2 b^T D^-1 W loc + b^T D^-1 b the digits cancel.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = pivot_inputs(17, 3, d, posterior, dtype)
    jac = torch.randint(-2, 3, (3, d, d), generator=generator).to(dtype).tril(-1)
    loc = torch.randint(900, 1100, (1, d), generator=generator).to(dtype)
    W = torch.eye(d, dtype=dtype) - jac
    offset = (W @ loc[0]) - 2.0**-7
    hard = SEMInputs(jac, offset, torch.full((d,), -3.0, dtype=dtype), loc.expand(17, d), 1e-2 * inputs.factor)
    expected = true_pivot_kl(hard, "none", upstream_for(hard, "none"))[0]
    for isa in ISAS:
        value = kernel(hard, "none", upstream_for(hard, "none"), isa)[0]
        check_value(value, expected, hard, "none", isa)

    weighted = torch.exp(hard.log_sigma)[:, None] ** -1 * W  # D^-1/2 W_k
    target = torch.exp(hard.log_sigma) ** -1 * offset
    quadratic = torch.einsum("bi,kij,bj->bk", hard.loc, weighted.mT @ weighted, hard.loc)
    cross = torch.einsum("bi,kji,kj->bk", hard.loc, weighted, target)
    expanded = quadratic - 2 * cross + target.square().sum(-1)
    truth = d * 2.0**-14 * math.exp(6)
    terms = pivot_kl_terms(hard, "none")
    assert value_error(expanded, torch.full_like(expanded, truth), terms) > 10 * RELATIVE[dtype]


@each_dtype
@each_posterior
@pytest.mark.parametrize("d", [33, 64])
def test_ill_conditioned(d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = pivot_inputs(3, 3, d, posterior, dtype, jac_std=1.0)
    upstream = upstream_for(inputs, "none")
    expected, expected_gradients = true_pivot_kl(inputs, "none", upstream)
    for isa in ISAS:
        value, _, gradients = kernel(inputs, "none", upstream, isa)
        check_value(value, expected, inputs, "none", isa)
        check_gradients(gradients, expected_gradients, inputs, "none", isa)


# In PyTorch.


@pytest.mark.parametrize(("posterior", "reduce"), [("full", "none"), ("diagonal", "min"), ("full", "logsumexp")])
def test_in_pytorch(posterior: str, reduce: str) -> None:
    """Symbolic shapes, which take seconds, of all but the output of "logsumexp", which "min" has too."""
    check_in_pytorch(pivot_kl_ops[reduce], pivot_inputs(3, 2, 4, posterior), symbolic=reduce != "logsumexp")


@each_reduction
@each_posterior
def test_layouts_of_large_samples(posterior: str, reduce: str) -> None:
    check_layouts(pivot_kl_ops[reduce], pivot_inputs(5, 3, 40, posterior))


def test_it_makes_itself_known() -> None:
    assert backends()["pivot_kl"].keys() == {"reference", "cpu", "triton"}


def test_the_index_is_not_differentiable() -> None:
    value, index = call(pivot_kl, pivot_inputs(17, 3, 5).leaves(), reduce="min")
    assert value.requires_grad
    assert not index.requires_grad
    assert index.dtype == torch.int64


@each_posterior
def test_reductions_do_not_store_the_pairs(posterior: str) -> None:
    """Nor keep them for the backward pass: what is saved is inputs and outputs."""
    leaves = pivot_inputs(64, 500, 3, posterior, torch.float32).leaves()
    for reduce in ("min", "logsumexp"):
        value = first(call(pivot_kl, leaves, reduce=reduce))
        assert value.shape == (64,)
        saved = value.grad_fn.saved_tensors  # type: ignore[union-attr]
        assert max(t.numel() for t in saved) == leaves.jac.numel() < 64 * 500


# NaN, threads and bad arguments.


@each_meeting(sample=(0, 9, 16), posterior=POSTERIORS, d=ONE_PER_KERNEL, reduce=REDUCTIONS)
def test_nan_stays_in_its_sample(sample: int, posterior: str, d: int, reduce: str) -> None:
    inputs = pivot_inputs(17, 3, d, posterior)
    upstream = upstream_for(inputs, reduce)
    clean, _, clean_gradients = kernel(inputs, reduce, upstream)
    others = [b for b in range(17) if b != sample]
    for k in (3, 4):
        changed = [t.clone() for t in inputs]
        changed[k][(sample, d - 1, 0)[: changed[k].dim()]] = math.nan
        value, _, gradients = kernel(SEMInputs(*changed), reduce, upstream)
        assert value[sample].isnan().all()
        assert torch.equal(value[others], clean[others])
        for gradient, before in zip(gradients[3:], clean_gradients[3:], strict=True):
            assert gradient is not None
            assert before is not None
            assert torch.equal(gradient[others], before[others])


@each_reduction
def test_a_pivot_that_is_nan(reduce: str) -> None:
    inputs = pivot_inputs(17, 3, 5)
    offset = inputs.offset.clone()
    offset[1, 2] = math.nan
    value = call(pivot_kl, inputs._replace(offset=offset), reduce=reduce)
    if reduce == "none":
        assert value.isnan().any(0).tolist() == [False, True, False]
    else:
        assert first(value).isnan().all()
    if reduce == "min":
        assert value[1].tolist() == [1] * 17


@each_dtype
@each_posterior
def test_an_infinite_divergence(posterior: str, dtype: torch.dtype) -> None:
    inputs = pivot_inputs(17, 3, 5, posterior, dtype)
    offset = inputs.offset.clone()
    offset[1, 2] = 1e30 if dtype == torch.float32 else 1e200  # its square is infinite
    for reduce in REDUCTIONS:
        some, every = (inputs._replace(offset=o) for o in (offset, offset[1:2].expand(3, 5)))
        assert first(call(pivot_kl, every, reduce=reduce)).isposinf().all()
        value, expected = (first(call(pivot_kl, some, reduce=reduce, backend=b)) for b in ("cpu", "reference"))
        torch.testing.assert_close(value, expected)


@each_reduction
@each_posterior
def test_number_of_threads(posterior: str, reduce: str) -> None:
    inputs = pivot_inputs(400, 16, 24, posterior, torch.float32)
    upstream = upstream_for(inputs, reduce)
    expected, expected_gradients = true_pivot_kl(inputs, reduce, upstream)
    alone = kernel(inputs, reduce, upstream)
    for threads in (2, 4):
        torch.set_num_threads(threads)
        value, _, gradients = kernel(inputs, reduce, upstream)
        check_value(value, expected, inputs, reduce)
        check_gradients(gradients, expected_gradients, inputs, reduce, f"{threads} threads")
        assert torch.equal(value, alone[0])
        assert same_bits(gradients[3:], alone[2][3:])
        assert same_bits(gradients, kernel(inputs, reduce, upstream)[2]), "two runs differ"


def test_calls_from_several_threads_at_once() -> None:
    cases = [(pivot_inputs(40, 5, 17, posterior), r) for posterior in ("diagonal", "full") for r in REDUCTIONS]

    def run(case: tuple[SEMInputs, str]) -> list[Tensor | None]:
        value, _, gradients = kernel(*case, upstream_for(*case))
        return [value, *gradients]

    expected = [run(case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for found, alone in zip(pool.map(run, cases * 3), expected * 3, strict=True):
            assert same_bits(found, alone)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


# Changes of valid arguments with B = 4, K = 2, d = 3 and a full posterior; and the message, a pattern.
ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "neither": ({"scale_tril": None}, ValueError, "give exactly one of scale and scale_tril, got neither"),
    "both": ({"scale": ones(4, 3)}, ValueError, "give exactly one of scale and scale_tril"),
    "reduce": ({"reduce": "mean"}, ValueError, "reduce must be one of none, min, logsumexp, got 'mean'"),
    "jac_shared": ({"jac": ones(3, 3)}, ValueError, r"jac must have shape \(K, 3, 3\) with K >= 1, got \(3, 3\)"),
    "no_pivots": ({"jac": ones(0, 3, 3)}, ValueError, r"jac must have shape .* got \(0, 3, 3\)"),
    "offset": ({"offset": ones(3)}, ValueError, r"offset must have shape \(2, 3\), got \(3,\)"),
    "log_sigma": ({"log_sigma": ones(2)}, ValueError, r"log_sigma must have shape \(3,\), got \(2,\)"),
    "factor": ({"scale_tril": ones(4, 3)}, ValueError, r"scale_tril must have shape \(4, 3, 3\), got \(4, 3\)"),
    "loc": ({"loc": ones(3)}, ValueError, r"loc must have shape \(B, d\), got \(3,\)"),
    "backend": ({"backend": "gpu"}, ValueError, "backend: there is no backend 'gpu'"),
    "list": ({"jac": [[0.0]]}, TypeError, "jac must be a tensor, got list"),
    "dtype": ({"offset": ones(2, 3).float()}, TypeError, "offset has dtype torch.float32, but loc has"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    changes, error, message = ERRORS[case]
    names = ("jac", "offset", "log_sigma", "loc", "scale_tril")
    with pytest.raises(error, match=f"^{message}"):
        pivot_kl(**(dict(zip(names, pivot_inputs(4, 2, 3), strict=True)) | changes))
