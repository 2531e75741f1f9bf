"""`mlp_sem_kl` against what people write: torch.func for the Jacobian, einsum for its formula, and a compiler.

    python -m pytest bench/bench_mlp_sem_kl.py -k "1024x64x16 and diagonal and float32"

Every contender computes the mean KL over the batch and, in the mode "forward+backward", its gradients in all nine
inputs. `einsum_sem_kl` writes the Jacobian's formula and hands Jacobians to our `sem_kl`; `jacrev` has torch.func
find them, which takes seconds where d is large and is left out there. Weights and edges are clean triangles for
all, so that nobody has to cut them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import product
from typing import NamedTuple

import pytest
import torch
from bound import Work, pyramid, strict_triangle, triangle
from inputs import DTYPES
from interleave import Call, Compare, playback
from mlp_sem_kl_inputs import MLPSEMInputs, Truth, mlp_sem_inputs, truth
from peers import as_tensor, installed, jax_mlp_sem_kl
from tolerances import PEER, RELATIVE, value_error
from torch import Tensor

from causalvae_fast.ops import _native, mlp_sem_kl, sem_kl
from causalvae_fast.ops.mlp_sem_kl.reference import mlp_sem_kl_reference

SHAPES = ((100, 5, 16), (1024, 16, 16), (1024, 64, 16), (256, 128, 16))  # B, d, h
POSTERIORS = ("diagonal", "full")
MODES = ("forward", "forward+backward")
OURS = ("ours", "ours_per_sample", "kernel")
LARGEST_JACREV = 64  # d, where a call takes three seconds


class Case(NamedTuple):
    batch: int
    d: int
    hidden: int
    posterior: str
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.batch}x{self.d}x{self.hidden}-{self.posterior}-{self.mode}-{dtype}"


CASES = [Case(*shape, *rest) for *rest, shape in product(POSTERIORS, MODES, DTYPES, SHAPES)]


def contenders_of(case: Case) -> list[str]:
    names = ["ours", "ours_per_sample", "reference", "compiled_reference", "einsum_sem_kl", "kernel"]
    names += ["jax"] if installed("jax") else []
    return names + (["jacrev"] if case.d <= LARGEST_JACREV else [])


PAIRS = [(case, contender) for case in CASES for contender in contenders_of(case)]


def work(case: Case) -> Work:
    """What must be computed and moved; activations are left out.

    Of each sample, for each unit and each parent of its node, multiply-adds for pre and for J; with gradients, for
    H, for dz, and two for the weights. Of each weight, its product with the edge; with gradients, that of dU and a
    multiply-add for dm. Then what `sem_kl` needs of each J_ij, or of its triangles, which are not moved.
    """
    B, d, h = case.batch, case.d, case.hidden
    backward, strict = case.mode == "forward+backward", strict_triangle(d)
    flops = B * h * strict * (12 if backward else 4) + h * strict * (4 if backward else 1)
    if case.posterior == "full":
        flops += 2 * B * (pyramid(d) + triangle(d) + strict)
        flops += B * (4 * pyramid(d) + triangle(d) + 4 * strict) if backward else 0
    else:
        flops += B * strict * (13 if backward else 5)
    factor_read, factor_written = (triangle(d), d * d) if case.posterior == "full" else (d, d)
    read = (h + 1) * strict + 2 * d * h + 2 * d + B * (2 * d + factor_read)
    written = 1
    if backward:
        written += (h + 1) * d * d + 2 * d * h + 2 * d + B * (2 * d + factor_written)
    return Work(flops, read, written)


def factor_of(factor: Tensor) -> dict[str, Tensor]:
    return {"scale" if factor.dim() == 2 else "scale_tril": factor}


def ours(*tensors: Tensor) -> Tensor:
    return mlp_sem_kl(*tensors[:8], **factor_of(tensors[8]), reduction="mean")  # type: ignore[arg-type]


def ours_per_sample(*tensors: Tensor) -> Tensor:
    return mlp_sem_kl(*tensors[:8], **factor_of(tensors[8])).mean()  # type: ignore[arg-type]


def reference(*tensors: Tensor) -> Tensor:
    return mlp_sem_kl_reference("tanh")(*tensors).mean()


def compiled_reference() -> Callable[..., Tensor]:
    torch._dynamo.reset()  # what other cases compiled counts against its limit
    return torch.compile(reference, fullgraph=True, dynamic=False)


def einsum_sem_kl(
    pivot: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    factor: Tensor,
) -> Tensor:
    weights = w_in * edges.unsqueeze(1)
    units = torch.tanh(torch.einsum("bj,ikj->bik", pivot, weights) + b_in)
    jac = torch.einsum("bik,ikj->bij", (1 - units * units) * w_out, weights)
    offset = (units * w_out).sum(-1) + b_out - torch.einsum("bij,bj->bi", jac, pivot)
    return sem_kl(jac, offset, log_sigma, loc, **factor_of(factor), reduction="mean")


def jacrev(
    pivot: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    factor: Tensor,
) -> Tensor:
    weights = w_in * edges.unsqueeze(1)

    def network(z: Tensor) -> tuple[Tensor, Tensor]:
        value = (torch.tanh(weights @ z + b_in) * w_out).sum(-1) + b_out
        return value, value

    jac, value = torch.vmap(torch.func.jacrev(network, has_aux=True))(pivot)
    residual = loc - value - (jac @ (loc - pivot).unsqueeze(-1)).squeeze(-1)
    if factor.dim() == 2:
        variance = factor.square()
        spread = variance + (jac.square() @ variance.unsqueeze(-1)).squeeze(-1)
        log_det = factor.log().sum(-1)
    else:
        spread = (factor - jac @ factor).square().sum(-1)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    mahalanobis = (torch.exp(-2 * log_sigma) * (spread + residual.square())).sum(-1)
    return (0.5 * (mahalanobis - loc.shape[1]) + log_sigma.sum() - log_det).mean()


# How the loss of a contender is made, when its case begins.
CONTENDERS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "ours": lambda: ours,
    "ours_per_sample": lambda: ours_per_sample,
    "reference": lambda: reference,
    "compiled_reference": compiled_reference,
    "einsum_sem_kl": lambda: einsum_sem_kl,
    "jacrev": lambda: jacrev,
}


class MLPSEMKLContenders:
    """The contenders of one case; their results are the mean KL and, with the backward pass, nine gradients."""

    def __init__(self, case: Case) -> None:
        self.backward, self.posterior = case.mode == "forward+backward", case.posterior
        inputs = mlp_sem_inputs(case.batch, case.d, case.hidden, case.posterior, case.dtype)
        self.inputs = inputs.where_not_read(0)
        self.upstream = torch.full((), 1 / case.batch, dtype=case.dtype)

    @cached_property
    def expected(self) -> Truth:
        return truth("tanh", self.inputs, self.upstream.expand(len(self.inputs.loc)))

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel()
        if contender == "jax":
            return jax_mlp_sem_kl(self.inputs, self.backward)
        loss = CONTENDERS[contender]()
        if not self.backward:
            return torch.no_grad()(lambda: (loss(*self.inputs),))
        leaves = self.inputs.leaves()

        def step() -> tuple[Tensor, ...]:
            value = loss(*leaves)
            return value, *torch.autograd.grad(value, leaves)

        return step

    def _kernel(self) -> Call:
        """The bare call, into buffers that are there already."""
        value, total = self.inputs.loc.new_empty(len(self.inputs.loc)), None
        gradients = [torch.empty_like(t) if self.backward else None for t in self.inputs]
        rest = False, self.upstream, 0.0, value, total, *gradients, torch.get_num_threads(), ""
        kernel = _native.cpu().mlp_sem_kl
        result = value, *(g for g in gradients if g is not None)

        def step() -> tuple[Tensor, ...]:
            kernel("tanh", *self.inputs, *rest)
            return result

        return step

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.inputs.loc.dtype]
        value, *gradients = map(as_tensor, result)
        error = value_error(value.mean(), self.expected.value.mean(), self.expected.terms.mean())
        assert error <= tolerance, f"{contender}: the value is off by {error:.1e}"
        assert len(gradients) == (9 if self.backward else 0)
        if not self.backward:
            return
        # What others give above the triangles belongs to entries that the matrices have not.
        found = MLPSEMInputs(*gradients).where_not_read(0)
        for name, error in self.expected.gradient_errors(found, self.posterior).items():
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize(("case", "contender"), PAIRS, ids=str)
def test_mlp_sem_kl(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d, case.hidden],
        "posterior": case.posterior,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("mlp_sem_kl", MLPSEMKLContenders(case), described, work(case))
