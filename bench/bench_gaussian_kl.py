"""`gaussian_kl` against what people use: torch.distributions, and the formula in PyTorch.

    python -m pytest bench/bench_gaussian_kl.py -k "1024x64 and float32"

Every contender computes the KL of each sample's q from each sample's p, their mean and, in the mode
"forward+backward", the gradients of it in all four inputs. Both Gaussians are given by their factors, or both by
their covariance matrices. torch.distributions is measured without validation of arguments. GPyTorch
takes part where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from bound import Work, full_pyramid, pyramid, strict_triangle, triangle
from gaussian_inputs import GaussianInputs, gaussian_case, gaussian_kl_terms, true_gaussian_kl
from inputs import DTYPES
from interleave import Call, Compare, playback
from peers import gpytorch_normal, parameter
from tolerances import PEER, RELATIVE, gradient_error, value_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import gaussian_kl
from causalvae_fast.ops.gaussian_kl.autograd import GIVEN

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128), (16, 512))  # B, d
MODES = ("forward", "forward+backward")
OURS = ("ours", "kernel")
CONTENDERS = ("ours", "formula", "compiled_formula", "torch_distributions", "gpytorch", "kernel")


class Case(NamedTuple):
    batch: int
    d: int
    given: str  # "scale_tril" or "covariance_matrix"
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.batch}x{self.d}-{self.given}-{self.mode}-{str(self.dtype).removeprefix('torch.')}"


CASES = [Case(*shape, given, mode, dtype) for given, mode, dtype, shape in product(GIVEN, MODES, DTYPES, SHAPES)]


def work(case: Case) -> Work:
    """What must be computed and moved.

    Given factors, multiply-adds: N = L_p^-1 L_q is a pyramid (its divisions a triangle of products alone), |N|^2
    a triangle, u a strict triangle. The gradients take L_p^-T N on and below the diagonal (the same again), its
    product with N^T, which is a full pyramid, v and v u^T.

    Given covariance matrices: two Cholesky factorisations first, of a pyramid each. The gradients take two
    inverses (pyramids), two squares of them and N N^T (full pyramids), the product of L_p^-1 with a symmetric
    matrix on and below the diagonal (for each of its columns j, (d - j)^2) and the product of that with L_p^-T
    (a full pyramid), v and u u^T.
    """
    B, d = case.batch, case.d
    covariances, backward = case.given == "covariance_matrix", case.mode == "forward+backward"
    flops = 2 * (pyramid(d) + triangle(d) + strict_triangle(d)) + triangle(d)
    flops += 4 * pyramid(d) if covariances else 0
    if backward:
        flops += 2 * (strict_triangle(d) + triangle(d))
    if backward and covariances:
        flops += 2 * (2 * pyramid(d) + 4 * full_pyramid(d) + d * (d + 1) * (2 * d + 1) // 6)
    elif backward:
        flops += 2 * (pyramid(d) + full_pyramid(d)) + triangle(d)
    written = 1 + (2 * B * (d + d * d) if backward else 0)
    return Work(B * flops, 2 * B * (d + triangle(d)), written)


class GaussianKLContenders:
    """The contenders of one case; their results are the mean KL and, with the backward pass, four gradients."""

    def __init__(self, case: Case) -> None:
        self.backward = case.mode == "forward+backward"
        self.dtype = case.dtype
        self.case = gaussian_case(case.batch, case.d, (case.given, case.given), dtype=case.dtype)
        # Clean triangles, so that nobody has to cut them.
        loc_q, loc_p, *matrices = self.case.inputs
        clean = [m.tril() + (m.tril(-1).mT if case.given == "covariance_matrix" else 0) for m in matrices]
        self.inputs = GaussianInputs(loc_q, loc_p, *clean)
        self.upstream = torch.full((), 1 / case.batch, dtype=case.dtype)

    def loss(self, contender: str) -> Callable[..., Tensor]:
        given = self.case.given[0]

        def ours(*tensors: Tensor) -> Tensor:
            return self.case.call(gaussian_kl, *tensors).mean()

        def formula(*tensors: Tensor) -> Tensor:
            value = self.case.op.reference(*tensors)
            assert isinstance(value, Tensor)
            return value.mean()

        def torch_distributions(loc_q: Tensor, loc_p: Tensor, matrix_q: Tensor, matrix_p: Tensor) -> Tensor:
            q = MultivariateNormal(loc_q, **{given: matrix_q}, validate_args=False)
            p = MultivariateNormal(loc_p, **{given: matrix_p}, validate_args=False)
            return kl_divergence(q, p).mean()

        def gpytorch(loc_q: Tensor, loc_p: Tensor, matrix_q: Tensor, matrix_p: Tensor) -> Tensor:
            q, p = gpytorch_normal(loc_q, **{given: matrix_q}), gpytorch_normal(loc_p, **{given: matrix_p})
            return kl_divergence(q, p).mean()

        if contender == "compiled_formula":
            torch._dynamo.reset()  # what other cases compiled counts against its limit
            return torch.compile(formula, fullgraph=True, dynamic=False)
        losses = {"formula": formula, "torch_distributions": torch_distributions, "gpytorch": gpytorch}
        return losses.get(contender, ours)

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel
        loss = self.loss(contender)
        if not self.backward:
            return torch.no_grad()(lambda: (loss(*self.inputs),))
        leaves = [t.clone().requires_grad_() for t in self.inputs]

        def step() -> tuple[Tensor, ...]:
            value = loss(*leaves)
            return value, *torch.autograd.grad(value, leaves)

        return step

    def _kernel(self) -> tuple[Tensor, ...]:
        if not self.backward:
            return (self.case.kernel(self.inputs)[0],)
        value, gradients = self.case.kernel(self.inputs, upstream=self.upstream, wanted=(True,) * 4)
        return value, *(g for g in gradients if g is not None)

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.dtype]
        value, *gradients = result
        expected, expected_gradients = true_gaussian_kl(self.case, self.upstream.expand(len(self.inputs.loc_q)))
        error = value_error(value.mean(), expected.mean(), gaussian_kl_terms(self.case).mean())
        assert error <= tolerance, f"{contender}: the value is off by {error:.1e}"
        assert len(gradients) == (4 if self.backward else 0)
        for name, gradient, truth in zip(self.inputs._fields, gradients, expected_gradients, strict=False):
            # What others give above the triangles belongs to entries that a lower triangular matrix has not.
            triangular = name.startswith("matrix") and self.case.given[0] == "scale_tril"
            error = gradient_error(gradient.tril() if triangular else gradient, truth, batched=False)
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize("contender", [*map(parameter, CONTENDERS)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gaussian_kl(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d],
        "given": case.given,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("gaussian_kl", GaussianKLContenders(case), described, work(case))
