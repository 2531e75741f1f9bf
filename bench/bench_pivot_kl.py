"""`pivot_kl` against what people use: torch.distributions, and the formula in PyTorch.

    python -m pytest bench/bench_pivot_kl.py -k "256x32x16 and full and float32"

Every contender computes the divergences of B posteriors from K local Gaussians, reduces them, and takes the mean;
in the mode "forward+backward", also its gradients in all five inputs. torch.distributions is measured at its best:
without validation of arguments, with triangular solves for the local Gaussians, with the posterior's own factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from bound import Work, full_pyramid, pyramid, strict_triangle, triangle
from inputs import DTYPES, POSTERIORS, SEMInputs
from interleave import Call, Compare, playback
from pivot_inputs import call, first, kernel, pivot_inputs, pivot_kl_terms, true_pivot_kl
from tolerances import PEER, RELATIVE, exponential_tolerance, gradient_error, value_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import pivot_kl
from causalvae_fast.ops.pivot_kl.autograd import pivot_kl_ops
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS, pivot_kl_cpu

SHAPES = ((100, 8, 5), (256, 32, 16), (256, 32, 64))  # B, K, d
MODES = ("forward", "forward+backward")
OURS = ("ours", "kernel")
CONTENDERS = ("ours", "formula", "compiled_formula", "torch_distributions", "kernel")


class Case(NamedTuple):
    batch: int
    pivots: int
    d: int
    posterior: str  # "diagonal" or "full"
    reduce: str
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        shape = f"{self.batch}x{self.pivots}x{self.d}"
        return f"{shape}-{self.posterior}-{self.reduce}-{self.mode}-{str(self.dtype).removeprefix('torch.')}"


CASES = [
    Case(*shape, posterior, reduce, mode, dtype)
    for posterior, reduce, mode, dtype, shape in product(POSTERIORS, REDUCTIONS, MODES, DTYPES, SHAPES)
]


def work(case: Case) -> Work:
    """What must be computed and moved.

    Diagonal, multiply-adds: the residual of a sample and a pivot is a strict triangle, and so are its parts of
    dm and dA, for all pairs, or for the closest only. Norms are taken once for each pivot (3 flops of an A_kij,
    5 more for the gradients, as in `sem_kl`).

    Full: M is a pyramid for each pair, |M|^2 a triangle. (The trace of W^T D^-1 W with L L^T would be a triangle
    alone, but loses accuracy.) The gradients add, for pairs with a weight, two triangles of weighted sums of L_b
    L_b^T and of W_k^T D^-1 W_k and two strict ones, for dm and r m^T; for each sample L L^T, a full pyramid, and
    a symmetric matrix times L on and below the diagonal; for each pivot W^T D^-1 W, a full pyramid, and W times
    a symmetric matrix below it.
    """
    B, K, d = case.batch, case.pivots, case.d
    full, backward, strict = case.posterior == "full", case.mode == "forward+backward", strict_triangle(d)
    weighted = B if case.reduce == "min" else B * K
    of_pair = pyramid(d) + triangle(d) + strict if full else strict
    flops = 2 * B * K * of_pair + (0 if full else 3 * K * strict)
    if backward and full:
        of_sample = full_pyramid(d) + d * (d + 1) * (2 * d + 1) // 6
        of_pivot = full_pyramid(d) + d * (d - 1) * (2 * d - 1) // 6
        flops += 2 * (B * of_sample + K * of_pivot + 2 * weighted * (triangle(d) + strict))
    elif backward:
        flops += 4 * weighted * strict + 5 * K * strict
    vectors = K * d + B * d + d  # offset, loc, log_sigma
    read = K * strict + vectors + B * (triangle(d) if full else d)
    written = 1 + ((K * d * d + vectors + B * (d * d if full else d)) if backward else 0)
    return Work(flops, read, written)


def from_distributions(inputs: SEMInputs) -> Tensor:
    """(B, K), by one triangular solve for each pivot: W^-1 (b, D^1/2)."""
    jac, offset, log_sigma, loc, factor = inputs
    W = torch.eye(jac.shape[-1], dtype=jac.dtype) - jac
    right = torch.cat((offset.unsqueeze(-1), log_sigma.exp().diag().expand_as(jac)), -1)
    solved = torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True)
    L = factor.diag_embed() if factor.dim() == 2 else factor
    p = MultivariateNormal(solved[..., 0], scale_tril=solved[..., 1:], validate_args=False)
    q = MultivariateNormal(loc.unsqueeze(1), scale_tril=L.unsqueeze(1), validate_args=False)
    return kl_divergence(q, p)


def reduced(kl: Tensor, reduce: str) -> Tensor:
    if reduce == "logsumexp":
        return math.log(kl.shape[1]) - torch.logsumexp(-kl, 1)
    return kl.amin(1) if reduce == "min" else kl


class PivotKLContenders:
    """The contenders of one case; their results are the mean and, with the backward pass, five gradients."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.backward = case.mode == "forward+backward"
        inputs = pivot_inputs(case.batch, case.pivots, case.d, case.posterior, case.dtype)
        # Clean triangles, so that nobody has to cut them.
        inputs = inputs._replace(jac=inputs.jac.tril(-1))
        self.inputs = inputs if case.posterior == "diagonal" else inputs._replace(factor=inputs.factor.tril())
        shape = (case.batch, case.pivots) if case.reduce == "none" else (case.batch,)
        self.upstream = torch.full(shape, 1 / math.prod(shape), dtype=case.dtype)

    def loss(self, contender: str) -> Callable[..., Tensor]:
        reduce = self.case.reduce

        def ours(*tensors: Tensor) -> Tensor:
            return first(call(pivot_kl, SEMInputs(*tensors), reduce=reduce)).mean()

        def formula(*tensors: Tensor) -> Tensor:
            return first(pivot_kl_ops[reduce].reference(*tensors)).mean()

        def torch_distributions(*tensors: Tensor) -> Tensor:
            return reduced(from_distributions(SEMInputs(*tensors)), reduce).mean()

        if contender == "compiled_formula":
            torch._dynamo.reset()  # what other cases compiled counts against its limit
            return torch.compile(formula, fullgraph=True, dynamic=False)
        return {"ours": ours, "formula": formula, "torch_distributions": torch_distributions}[contender]

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel
        loss = self.loss(contender)
        if not self.backward:
            return torch.no_grad()(lambda: (loss(*self.inputs),))
        leaves = self.inputs.leaves()

        def step() -> tuple[Tensor, ...]:
            value = loss(*leaves)
            return value, *torch.autograd.grad(value, leaves)

        return step

    def _kernel(self) -> tuple[Tensor, ...]:
        if not self.backward:
            return (pivot_kl_cpu(*self.inputs, reduce=self.case.reduce).value,)
        value, _, gradients = kernel(self.inputs, self.case.reduce, self.upstream)
        return value, *(g for g in gradients if g is not None)

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        dtype, reduce = self.case.dtype, self.case.reduce
        tolerance = (RELATIVE if contender in OURS else PEER)[dtype]
        value, *gradients = result
        expected, expected_gradients = true_pivot_kl(self.inputs, reduce, self.upstream)
        terms = pivot_kl_terms(self.inputs, reduce)
        error = value_error(value.mean(), expected.mean(), terms.mean())
        assert error <= tolerance, f"{contender}: the value is off by {error:.1e}"
        assert len(gradients) == (5 if self.backward else 0)
        if reduce == "logsumexp":
            tolerance = max(tolerance, exponential_tolerance(dtype, terms))
        for name, gradient, truth in zip(self.inputs._fields, gradients, expected_gradients, strict=False):
            # What others give above the triangles belongs to entries that a lower triangular matrix has not.
            cut = {"jac": -1, "factor": 0}.get(name) if gradient.dim() == 3 else None
            found = gradient if cut is None else gradient.tril(cut)
            error = gradient_error(found, truth, batched=False)
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pivot_kl(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.pivots, case.d],
        "posterior": case.posterior,
        "reduce": case.reduce,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("pivot_kl", PivotKLContenders(case), described, work(case))
