"""`sem_kl` against what people use: torch.distributions, and the precision-factor formula.

    python -m pytest bench/bench_sem_kl.py -k "1024x64 and full and float32"

Every contender computes the mean KL over the batch and, in the mode "forward+backward", its gradients in all five
inputs. torch.distributions is measured at its best: without validation of arguments, with triangular solves for
the SEM's Gaussian, with the posterior's own factor. JAX and GPyTorch take part where they are installed
(`pip install -e '.[bench]'`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from bound import Work, pyramid, stored, strict_triangle, triangle
from inputs import DTYPES, POSTERIORS, SEMInputs, sem_inputs, sem_kl_terms, true_sem_kl
from interleave import Call, Compare, playback
from peers import as_tensor, gpytorch_normal, jax_sem_kl, parameter
from tolerances import PEER, RELATIVE, gradient_error, value_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import _native, pack_tril, sem_kl, unpack_tril
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128), (16, 512))  # B, d
MODES = ("forward", "forward+backward")
OURS = ("ours", "ours_per_sample", "kernel")


class Case(NamedTuple):
    batch: int
    d: int
    posterior: str  # "diagonal" or "full"
    mode: str
    dtype: torch.dtype
    jac: str = "per_sample"  # or "shared" by the batch, as that of a linear mechanism
    layout: str = "dense"  # or "packed": of the triangles that ours get, since others take dense ones only

    def __str__(self) -> str:
        words = [f"{self.batch}x{self.d}", self.posterior]
        words += ["shared"] if self.jac == "shared" else []
        words += ["packed"] if self.layout == "packed" else []
        return "-".join([*words, self.mode, str(self.dtype).removeprefix("torch.")])


CASES = [
    Case(*shape, posterior, mode, dtype)
    for posterior, mode, dtype, shape in product(POSTERIORS, MODES, DTYPES, SHAPES)
]
CASES += [
    Case(*shape, posterior, mode, torch.float32, *rest)
    for rest, posterior, mode, shape in product((("shared",), ("per_sample", "packed")), POSTERIORS, MODES, SHAPES)
]


def work(case: Case) -> Work:
    """What must be computed and moved.

    Full, multiply-adds of a sample: M = W L is a pyramid, |M_i|^2 a triangle, r a strict triangle. The gradients
    take D^-1 M (products alone, a triangle) and two more pyramids, M (D^-1 L)^T below the diagonal and W^T (D^-1
    M), with r m^T and W^T D^-1 r. If the batch shares A, the sum over the batch adds nothing: it is that of the
    multiply-adds.

    Diagonal, of each A_ij: A_ij^2 and its product with s_j^2, the residual: 5 flops. With gradients p = A_ij
    s_j^2 (1), |M_i|^2 by p A_ij (2), the residual (2), q = A_ij / sigma_i^2 (1), the column's norm by q A_ij
    (2), dm (2), dA_ij from p and r_i m_j (3): 13. If the batch shares A, a sample takes the residual and, for dm
    and dA, twice as much again, and the norms (3 for those of columns; 5 more for those of rows and dA) are
    taken once.
    """
    B, d = case.batch, case.d
    backward, full, shared = case.mode == "forward+backward", case.posterior == "full", case.jac == "shared"
    matrices, strict = 1 if shared else B, strict_triangle(d)
    if full:
        flops = 2 * B * (pyramid(d) + triangle(d) + strict)
        flops += B * (4 * pyramid(d) + triangle(d) + 4 * strict) if backward else 0
    elif shared:
        flops = strict * (6 * B + 8 if backward else 2 * B + 3)
    else:
        flops = B * strict * (13 if backward else 5)
    vectors = 2 * B * d + d  # offset, loc, log_sigma
    read = matrices * strict + vectors + B * (triangle(d) if full else d)
    written = 1
    if backward:
        written += matrices * stored(case.layout, d) + vectors + B * (stored(case.layout, d) if full else d)
    return Work(flops, read, written)


def sem_factor(inputs: SEMInputs) -> tuple[Tensor, Tensor]:
    """Mean (B, d) and factor, (B, d, d) or (d, d), of the SEM's Gaussian: W^-1 (b, D^1/2)."""
    jac, offset, log_sigma, *_ = inputs
    W = torch.eye(jac.shape[-1], dtype=jac.dtype) - jac
    sigma = log_sigma.exp().diag()
    if jac.dim() == 2:  # a factor for the whole batch, whose means are the columns of one solve
        right = torch.cat((offset.mT, sigma), -1)
        solved = torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True)
        return solved[:, : len(offset)].mT, solved[:, len(offset) :]
    right = torch.cat((offset.unsqueeze(-1), sigma.expand_as(jac)), -1)
    solved = torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True)
    return solved[..., 0], solved[..., 1:]


def posterior(inputs: SEMInputs) -> MultivariateNormal:
    factor = inputs.factor.diag_embed() if inputs.factor.dim() == 2 else inputs.factor
    return MultivariateNormal(inputs.loc, scale_tril=factor, validate_args=False)


def from_covariance_matrix(*tensors: Tensor) -> Tensor:
    inputs = SEMInputs(*tensors)
    mean, factor = sem_factor(inputs)
    p = MultivariateNormal(mean, covariance_matrix=factor @ factor.mT, validate_args=False)
    return kl_divergence(posterior(inputs), p).mean()


def from_scale_tril(*tensors: Tensor) -> Tensor:
    inputs = SEMInputs(*tensors)
    mean, factor = sem_factor(inputs)
    return kl_divergence(
        posterior(inputs), MultivariateNormal(mean, scale_tril=factor, validate_args=False)
    ).mean()


def from_gpytorch(*tensors: Tensor) -> Tensor:
    inputs = SEMInputs(*tensors)
    mean, factor = sem_factor(inputs)
    L = inputs.factor.diag_embed() if inputs.factor.dim() == 2 else inputs.factor
    p = gpytorch_normal(mean, scale_tril=factor.expand_as(L))
    return kl_divergence(gpytorch_normal(inputs.loc, scale_tril=L), p).mean()


def formula(*tensors: Tensor) -> Tensor:
    return sem_kl_reference(*tensors).mean()


def compiled_formula() -> Callable[..., Tensor]:
    torch._dynamo.reset()  # what other cases compiled counts against its limit
    return torch.compile(formula, fullgraph=True, dynamic=False)


def ours(*tensors: Tensor) -> Tensor:
    jac, offset, log_sigma, loc, factor = tensors
    scale, scale_tril = (factor, None) if factor.shape == loc.shape else (None, factor)
    return sem_kl(jac, offset, log_sigma, loc, scale=scale, scale_tril=scale_tril, reduction="mean")


def ours_per_sample(*tensors: Tensor) -> Tensor:
    """The KL of each sample first, as the drop-in layer gives it."""
    jac, offset, log_sigma, loc, factor = tensors
    scale, scale_tril = (factor, None) if factor.shape == loc.shape else (None, factor)
    return sem_kl(jac, offset, log_sigma, loc, scale=scale, scale_tril=scale_tril).mean()


# How the loss of a contender is made, when its case begins.
CONTENDERS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "ours": lambda: ours,
    "ours_per_sample": lambda: ours_per_sample,
    "formula": lambda: formula,
    "compiled_formula": compiled_formula,
    "scale_tril": lambda: from_scale_tril,
    "covariance_matrix": lambda: from_covariance_matrix,
    "gpytorch": lambda: from_gpytorch,
}


class SEMKLContenders:
    """The contenders of one case; their results are the mean KL and, with the backward pass, five gradients."""

    def __init__(self, case: Case) -> None:
        self.backward = case.mode == "forward+backward"
        inputs = sem_inputs(case.batch, case.d, case.posterior, case.jac, dtype=case.dtype)
        # Clean triangles, so that nobody has to cut them.
        inputs = inputs._replace(jac=inputs.jac.tril(-1))
        self.inputs = inputs if case.posterior == "diagonal" else inputs._replace(factor=inputs.factor.tril())
        self.upstream = torch.full((), 1 / case.batch, dtype=case.dtype)
        self.packed = {0, *({4} if case.posterior == "full" else ())} if case.layout == "packed" else set()

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel()
        if contender == "jax":
            return jax_sem_kl(self.inputs, self.backward)
        loss = CONTENDERS[contender]()
        inputs = self._ours() if contender in OURS else self.inputs
        if not self.backward:
            return torch.no_grad()(lambda: (loss(*inputs),))
        leaves = inputs.leaves()

        def step() -> tuple[Tensor, ...]:
            value = loss(*leaves)
            return value, *torch.autograd.grad(value, leaves)

        return step

    def _ours(self) -> SEMInputs:
        """The inputs with the triangles laid out as the case has them."""
        return SEMInputs(*(pack_tril(t) if k in self.packed else t for k, t in enumerate(self.inputs)))

    def _kernel(self) -> Call:
        """The bare call, into buffers that are there already."""
        inputs = self._ours()
        value, total = inputs.loc.new_empty(len(inputs.loc)), None
        gradients = [torch.empty_like(t) if self.backward else None for t in inputs]
        layout = 0 in self.packed, 4 in self.packed
        arguments = *inputs, *layout, self.upstream, 0.0, value, total, *gradients, torch.get_num_threads(), ""
        kernel = _native.cpu().sem_kl
        result = value, *(g for g in gradients if g is not None)

        def step() -> tuple[Tensor, ...]:
            kernel(*arguments)
            return result

        return step

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.inputs.loc.dtype]
        value, *gradients = map(as_tensor, result)
        expected, expected_gradients = true_sem_kl(self.inputs, self.upstream.expand(len(self.inputs.loc)))
        error = value_error(value.mean(), expected.mean(), sem_kl_terms(self.inputs).mean())
        assert error <= tolerance, f"{contender}: the value is off by {error:.1e}"
        assert len(gradients) == (5 if self.backward else 0)
        if contender in OURS:
            gradients = [unpack_tril(g) if k in self.packed else g for k, g in enumerate(gradients)]
        for name, gradient, truth in zip(self.inputs._fields, gradients, expected_gradients, strict=False):
            # What others give above the triangles belongs to entries that a lower triangular matrix has not.
            full = self.inputs.factor.dim() == 3
            cut = {"jac": -1, "factor": 0 if full else None}.get(name)
            found = gradient if cut is None else gradient.tril(cut)
            error = gradient_error(found, truth, batched=False)
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize("contender", [*map(parameter, CONTENDERS), parameter("jax"), "kernel"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sem_kl(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d],
        "posterior": case.posterior,
        "jac": case.jac,
        "layout": case.layout,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("sem_kl", SEMKLContenders(case), described, work(case))
