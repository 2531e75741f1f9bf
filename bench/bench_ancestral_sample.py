"""`ancestral_sample` against what people use: a loop over nodes, eager and compiled, and one triangular solve; and
`mlp_ancestral_sample` against the loops.

    python -m pytest bench/bench_ancestral_sample.py -k "1024x16 and linear and float32"
    python -m pytest bench/bench_ancestral_sample.py -k "mlp and 4096x64x16"

Every contender computes z under an intervention of its own for each sample and, in the mode "forward+backward",
the gradients in noise, parameters and values. torch.linalg solves the linear mechanism only, with a matrix of its
own for each sample, from which the replaced rows are cut. Without gradients, a loop may write z in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from bound import Work, strict_triangle
from inputs import DTYPES, SHARING
from interleave import Call, Compare, playback
from mlp_inputs import gradient_errors, mlp_inputs
from mlp_inputs import terms as mlp_terms
from mlp_inputs import truth as mlp_truth
from test_ancestral_sample import KERNELS, OPS, make_inputs, terms, truth
from tolerances import PEER, RELATIVE, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops.ancestral_sample.autograd import mlp_ops

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


MLP_SHAPES = ((100, 5, 8), (1024, 16, 16), (1024, 64, 16), (4096, 64, 16), (256, 128, 32))  # N, d, h


class MLPCase(NamedTuple):
    batch: int
    d: int
    hidden: int
    activation: str
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.batch}x{self.d}x{self.hidden}-mlp-{self.activation}-{self.mode}-{dtype}"


MLP_CASES = [MLPCase(*shape, "tanh", *rest) for *rest, shape in product(MODES, DTYPES, MLP_SHAPES)]
MLP_CASES += [MLPCase(1024, 64, 16, *rest) for rest in product(mlp_ops, MODES, DTYPES) if rest[0] != "tanh"]


def mlp_contenders_of(case: MLPCase) -> list[str]:
    names = ["ours", "reference", "kernel"]
    names += ["compiled_reference"] if case.d <= LARGEST_COMPILED else []
    return names + (["loop_in_place", "mechanism_loop"] if case.mode == "forward" else [])


MLP_PAIRS = [(case, contender) for case in MLP_CASES for contender in mlp_contenders_of(case)]


def mlp_work(case: MLPCase) -> Work:
    """What must be computed and moved, on average over interventions as in `work`; activations are left out.

    For each unit of each node, multiply-adds with the nodes before it, once for z, once for its adjoint and once
    for the gradient of the weights; and one with the output's weight. The rows of nodes that are replaced in a
    sample count nowhere. Of U and m, and of their gradients, the strict triangles are read and all is written.
    """
    N, d, h, backward = case.batch, case.d, case.hidden, case.mode != "forward"
    units = (1 - REPLACED) * h
    flops = 2 * N * units * (strict_triangle(d) + d) * (3 if backward else 1)
    read = strict_triangle(d) * (h + 1) + 2 * d * h + d + N * d * (2 if backward else 1)
    written = N * d + (d * h * (d + 2) + d + d * d + 2 * N * d if backward else 0)
    return Work(flops, read, written)


class MLPContenders:
    """The contenders of one case; their results are z and, with the backward pass, the gradients."""

    def __init__(self, case: MLPCase) -> None:
        self.activation, self.op = case.activation, mlp_ops[case.activation]
        self.backward = case.mode == "forward+backward"
        self.inputs = mlp_inputs(case.batch, case.d, case.hidden, dtype=case.dtype)
        self.expected, self.upstream, self.expected_gradients = mlp_truth(self.activation, self.inputs)

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel
        function = self._function(contender)
        if not self.backward:
            return torch.no_grad()(lambda: (function(*self.inputs),))
        leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in self.inputs]
        wanted = [t for t in leaves if t.requires_grad]

        def step() -> tuple[Tensor, ...]:
            z = function(*leaves)
            return z, *torch.autograd.grad(z, wanted, self.upstream)

        return step

    def _function(self, contender: str) -> Callable[..., Any]:
        if contender == "ours":
            return self.op
        if contender == "reference":
            return self.op.reference
        if contender in ("loop_in_place", "mechanism_loop"):
            return partial(self._loop, whole=contender == "mechanism_loop")
        torch._dynamo.reset()  # what other cases compiled counts against its limit
        return torch.compile(self.op.reference, fullgraph=True, dynamic=False)

    def _loop(
        self,
        noise: Tensor,
        w_in: Tensor,
        b_in: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        edges: Tensor,
        do_mask: Tensor,
        do_values: Tensor,
        *,
        whole: bool,
    ) -> Tensor:
        """Node after node, each computed alone, or, with `whole`, taken from a call of the mechanism for all."""
        phi = ACTIVATIONS[self.activation]
        z = torch.where(do_mask, do_values, noise)
        weights = w_in * edges.tril(-1).unsqueeze(1)
        for i in range(noise.shape[1]):
            if whole:
                units, _ = phi((z @ weights.flatten(0, 1).mT).unflatten(-1, b_in.shape) + b_in)
                f = ((units * w_out).sum(-1) + b_out)[:, i]
            else:
                units, _ = phi(torch.addmm(b_in[i], z[:, :i], weights[i, :, :i].mT))
                f = units @ w_out[i] + b_out[i]
            z[:, i] += torch.where(do_mask[:, i], 0, f)
        return z

    def _kernel(self) -> tuple[Tensor, ...]:
        outputs = self.op.kernels["cpu"].forward(*self.inputs)
        if not self.backward:
            return outputs
        wanted = self.inputs.differentiable
        gradients = self.op.kernels["cpu"].backward((self.upstream,), self.inputs, outputs, wanted)
        return *outputs, *(g for g in gradients if g is not None)

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.inputs.noise.dtype]
        z, *gradients = result
        error = value_error(z, self.expected, mlp_terms(self.activation, self.inputs))
        assert error <= tolerance, f"{contender}: z is off by {error:.1e}"
        if not self.backward:
            return
        found = iter(gradients)
        each = [next(found) if t.is_floating_point() else None for t in self.inputs]
        for name, error in gradient_errors(each, self.expected_gradients, self.inputs).items():
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize(("case", "contender"), MLP_PAIRS, ids=str)
def test_mlp_ancestral_sample(case: MLPCase, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d, case.hidden],
        "kind": "mlp",
        "activation": case.activation,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("ancestral_sample", MLPContenders(case), described, mlp_work(case))
