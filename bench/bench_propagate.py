"""`propagate` against what people use: torch.linalg, and torch.distributions' own way to a factor.

    python -m pytest bench/bench_propagate.py -k "1024x64 and per_sample and float32"

Every contender computes loc and scale_tril and, in the mode "forward+backward", the gradients of a loss whose
gradient in both outputs is given.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from bound import Work, pyramid, strict_triangle, triangle
from inputs import DTYPES, SHARING
from interleave import Call, Compare, playback
from test_propagate import Inputs, make_inputs, terms, truth
from tolerances import PEER, RELATIVE, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops import propagate
from causalvae_fast.ops.propagate.autograd import propagate_op
from causalvae_fast.ops.propagate.cpu import propagate_backward_cpu, propagate_cpu
from causalvae_fast.ops.propagate.reference import propagate_reference

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128), (16, 512))  # B, d
MODES = ("forward", "forward+backward")
OURS = ("ours", "kernel")

Outputs = tuple[Tensor, Tensor]


class Case(NamedTuple):
    batch: int
    d: int
    jac: str  # "per_sample" or "shared"
    mode: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.batch}x{self.d}-{self.jac}-{self.mode}-{str(self.dtype).removeprefix('torch.')}"


CASES = [Case(*shape, *rest) for *rest, shape in product(SHARING, MODES, DTYPES, SHAPES)]


def work(case: Case) -> Work:
    """What must be computed and moved.

    S = W^-1 diag(sigma) is a pyramid of multiply-adds, m a strict triangle. The gradients take two more
    pyramids, Y = W^-T G and Y S^T below the diagonal, and two strict triangles, y and y m^T. A shared A has one
    S, and one Y.
    """
    B, d = case.batch, case.d
    matrices = 1 if case.jac == "shared" else B
    flops = 2 * (matrices * pyramid(d) + B * strict_triangle(d))
    read = matrices * strict_triangle(d) + B * d + d
    written = matrices * d * d + B * d
    if case.mode == "forward+backward":
        flops *= 3
        read += matrices * triangle(d) + B * d  # the upstream gradients
        written += matrices * d * d + B * d + d
    return Work(flops, read, written)


def one_solve(jac: Tensor, offset: Tensor, log_sigma: Tensor) -> Outputs:
    """Both right-hand sides in one call of torch.linalg.solve_triangular, without the reference's masks."""
    W = torch.eye(jac.shape[-1], dtype=jac.dtype) - jac
    noise = log_sigma.exp().diag().expand_as(jac)
    if offset.dim() >= jac.dim():  # one W for the batch: the offsets are more columns
        right = torch.cat((noise, offset.mT), -1)
        solved = torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True)
        return solved[:, jac.shape[-1] :].mT, solved[:, : jac.shape[-1]]
    right = torch.cat((noise, offset.unsqueeze(-1)), -1)
    solved = torch.linalg.solve_triangular(W, right, upper=False, unitriangular=True)
    return solved[..., -1], solved[..., :-1]


def inverse(jac: Tensor, offset: Tensor, log_sigma: Tensor) -> Outputs:
    """By a general inverse, as implementations of the method do it."""
    W_inverse = torch.linalg.inv(torch.eye(jac.shape[-1], dtype=jac.dtype) - jac)
    return (W_inverse @ offset.unsqueeze(-1)).squeeze(-1), W_inverse * log_sigma.exp()


def compiled_reference() -> Callable[..., Outputs]:
    torch._dynamo.reset()  # what other cases compiled counts against its limit
    return torch.compile(propagate_reference, fullgraph=True, dynamic=False)


# How the function of a contender is made, when its case begins.
CONTENDERS: dict[str, Callable[[], Callable[..., Outputs]]] = {
    "ours": lambda: propagate_op,  # of a shared jac one scale_tril, which all others give too
    "reference": lambda: propagate_reference,
    "compiled_reference": compiled_reference,
    "solve_triangular": lambda: one_solve,
    "inverse": lambda: inverse,
}


class PropagateContenders:
    """The contenders of one case; their results are both outputs and, with the backward pass, three gradients."""

    def __init__(self, case: Case) -> None:
        self.backward = case.mode == "forward+backward"
        inputs = make_inputs(case.batch, case.d, case.jac, dtype=case.dtype)
        # Without numbers above the diagonal, so that nobody has to cut them.
        self.inputs = inputs._replace(jac=inputs.jac.tril(-1))
        self.expected, self.upstreams, self.expected_gradients = truth(self.inputs)

    def build(self, contender: str) -> Call:
        if contender == "kernel":
            return self._kernel
        function = CONTENDERS[contender]()
        if not self.backward:
            return torch.no_grad()(lambda: function(*self.inputs))
        leaves = [t.clone().requires_grad_() for t in self.inputs]

        def step() -> tuple[Tensor, ...]:
            outputs = function(*leaves)
            return *outputs, *torch.autograd.grad(outputs, leaves, self.upstreams)

        return step

    def _kernel(self) -> tuple[Tensor, ...]:
        outputs = propagate_cpu(*self.inputs)
        if not self.backward:
            return outputs
        gradients = propagate_backward_cpu(self.upstreams, self.inputs, outputs, (True,) * 3)
        return *outputs, *(g for g in gradients if g is not None)

    def verify(self, contender: str, result: tuple[Tensor, ...]) -> None:
        """Ours to the tolerance of the tests; the others compute the same in ways that may be less accurate."""
        tolerance = (RELATIVE if contender in OURS else PEER)[self.inputs.jac.dtype]
        outputs, gradients = result[:2], result[2:]
        for value, expected, unit in zip(outputs, self.expected, terms(self.inputs), strict=True):
            error = value_error(value.tril() if value.dim() == expected.dim() == 3 else value, expected, unit)
            assert error <= tolerance, f"{contender}: an output is off by {error:.1e}"
        assert len(gradients) == (3 if self.backward else 0)
        for name, gradient, expected in zip(Inputs._fields, gradients, self.expected_gradients, strict=False):
            # What others give above the triangle belongs to entries that A has not.
            found = gradient.tril(-1) if name == "jac" else gradient
            error = gradient_error(found, expected, batched=False)
            assert error <= tolerance, f"{contender}: the gradient of {name} is off by {error:.1e}"


def test_the_public_function_is_the_op() -> None:
    inputs = make_inputs(3, 4)
    torch.testing.assert_close(propagate(*inputs), propagate_op(*inputs))


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize("contender", [*CONTENDERS, "kernel"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_propagate(case: Case, contender: str, compare: Compare) -> None:
    described = {
        "shape": [case.batch, case.d],
        "jac": case.jac,
        "mode": case.mode,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    compare("propagate", PropagateContenders(case), described, work(case))
