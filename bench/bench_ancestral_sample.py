"""`ancestral_sample` against what people use: a loop over nodes, eager and compiled, and one triangular solve.

    python -m pytest bench/bench_ancestral_sample.py -k "1024x16 and linear and float32"

Every contender computes z under an intervention of its own for each sample and, in the mode "forward+backward",
the gradients in noise, parameters and values. torch.linalg solves the linear mechanism only, with a matrix of its
own for each sample, from which the replaced rows are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from bound import Work, strict_triangle
from inputs import DTYPES, SHARING
from interleave import Call, Compare, playback
from test_ancestral_sample import KERNELS, OPS, make_inputs, terms, truth
from tolerances import PEER, RELATIVE, gradient_error, value_error
from torch import Tensor

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128))  # N, d
MODES = ("forward", "forward+backward")
OURS = ("ours", "kernel")


class Case(NamedTuple):
    batch: int
    d: int
    kind: str  # "linear" or "quadratic"
    jac: str  # "per_sample" or "shared"
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.batch}x{self.d}-{self.kind}-{self.jac}-{self.mode}-{dtype}"


CASES = [Case(*shape, *rest) for *rest, shape in product(OPS, SHARING, MODES, DTYPES, SHAPES)]
# Compiling unrolls the loop over nodes, whose graph grows with d.
LARGEST_COMPILED = 16


def contenders_of(case: Case) -> list[str]:
    names = ["ours", "reference", "kernel"]
    names += ["compiled_reference"] if case.d <= LARGEST_COMPILED else []
    return names + (["solve_triangular"] if case.kind == "linear" else [])


PAIRS = [(case, contender) for case in CASES for contender in contenders_of(case)]


REPLACED = 0.3  # of the nodes, by the interventions of `make_inputs`, which nobody has to compute


def work(case: Case) -> Work:
    """What must be computed and moved, on average over interventions; the masks, of a byte for a node, are left
    out.

    A strict triangle of multiply-adds for z, one for its adjoint, and one for the gradient of a shared matrix,
    which is of products alone if each sample has its own; twice as much for the two matrices of a quadratic
    mechanism. The rows of replaced nodes count nowhere, and of noise and values only the one that is used.
    """
    N, d = case.batch, case.d
    kinds, shared, backward = 2 if case.kind == "quadratic" else 1, case.jac == "shared", case.mode != "forward"
    rows = (1 - REPLACED) * strict_triangle(d)
    flops = N * kinds * rows * (2 + (2 + (2 if shared else 1) if backward else 0))
    read = kinds * (strict_triangle(d) if shared else N * rows) + d + N * d + (N * d if backward else 0)
    written = N * d
    if backward:
        written += kinds * d * d * (1 if shared else N) + d + 2 * N * d
    return Work(flops, read, written)


def solve_triangular(noise: Tensor, jac: Tensor, offset: Tensor, do_mask: Tensor, do_values: Tensor) -> Tensor:
    """z = (I - A')^-1 c, with empty rows of A' and the values in c for the nodes that are replaced."""
    W = torch.eye(jac.shape[-1], dtype=jac.dtype) - jac.masked_fill(do_mask.unsqueeze(-1), 0)
    right = torch.where(do_mask, do_values, noise + offset).unsqueeze(-1)
    return torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True).squeeze(-1)


class AncestralSampleContenders:
    """The contenders of one case; their results are z and, with the backward pass, the gradients."""

    def __init__(self, case: Case) -> None:
        self.backward = case.mode == "forward+backward"
        self.inputs = make_inputs(case.kind, case.batch, case.d, case.jac, dtype=case.dtype)
        self.expected, self.upstream, self.expected_gradients = truth(self.inputs)

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel
        function = self._function(contender)
        if not self.backward:
            return torch.no_grad()(lambda: (function(*self.inputs.tensors),))
        leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in self.inputs.tensors]
        wanted = [t for t in leaves if t.requires_grad]

        def step() -> tuple[Tensor, ...]:
            z = function(*leaves)
            return z, *torch.autograd.grad(z, wanted, self.upstream)

        return step

    def _function(self, contender: str) -> Callable[..., Any]:
        op = self.inputs.op
        if contender == "ours":
            return op
        if contender == "reference":
            return op.reference
        if contender == "solve_triangular":
            return solve_triangular
        torch._dynamo.reset()  # what other cases compiled counts against its limit
        return torch.compile(op.reference, fullgraph=True, dynamic=False)

    def _kernel(self) -> tuple[Tensor, ...]:
        forward, backward = KERNELS[self.inputs.kind]
        outputs = forward(*self.inputs.tensors)
        if not self.backward:
            return outputs
        gradients = backward((self.upstream,), self.inputs.tensors, outputs, self.inputs.differentiable)
        return *outputs, *(g for g in gradients if g is not None)

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.inputs.dtype]
        z, *gradients = result
        error = value_error(z, self.expected, terms(self.inputs))
        assert error <= tolerance, f"{contender}: z is off by {error:.1e}"
        names = [n for n, d in zip(self.inputs.names, self.inputs.differentiable, strict=True) if d]
        expected = [g for g in self.expected_gradients if g is not None]
        assert len(gradients) == (len(names) if self.backward else 0)
        for name, gradient, known in zip(names, gradients, expected, strict=False):
            # What others give above the triangles belongs to entries that the matrices have not.
            found = gradient.tril(-1) if name in ("jac", "quadratic") else gradient
            error = gradient_error(found, known, batched=False)
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize(("case", "contender"), PAIRS, ids=str)
def test_ancestral_sample(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d],
        "kind": case.kind,
        "jac": case.jac,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("ancestral_sample", AncestralSampleContenders(case), described, work(case))
