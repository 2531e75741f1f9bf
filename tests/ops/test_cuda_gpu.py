"""The CUDA kernels where there is a GPU: parity with the reference, streams, graphs, devices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from checks import same_bits
from fused_checks import as_tuple, leaves
from gaussian_inputs import COMBINATIONS, SHARED, gaussian_case
from gpu_checks import captured, on_a_late_stream, overwrite
from inputs import DTYPES, SHARING, sem_inputs
from mlp_inputs import mlp_inputs
from tolerances import RELATIVE, gradient_error
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.ops import backends
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.ancestral_sample.autograd import linear_op, mlp_ops, quadratic_op
from causalvae_fast.ops.propagate.autograd import propagate_op

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

OPS = ("ancestral_sample", "mlp_ancestral_sample", "propagate", "gaussian_kl")
SIZES = (1, 2, 3, 5, 16, 17, 32, 33, 64, 65, 100, 257)
BATCHES = (0, 1, 17)
EACH_KERNEL = (5, 40, 100)
BACKEND, DEVICE = "cuda", "cuda"


class Problem(NamedTuple):
    """An op and its inputs, on the CPU."""

    op: FusedOp
    inputs: tuple[Tensor, ...]

    def to(self, device: str) -> Problem:
        return Problem(self.op, tuple(t.to(device) for t in self.inputs))

    def double(self) -> Problem:
        return Problem(self.op, tuple(t.double() if t.is_floating_point() else t for t in self.inputs))


def problems(op: str, batch: int, d: int, dtype: torch.dtype) -> Iterator[Problem]:
    """One for each layout of the inputs."""
    if op == "gaussian_kl":
        for given, shared in itertools.product(COMBINATIONS, SHARED):
            case = gaussian_case(batch, d, given, shared, dtype)
            yield Problem(case.op, case.inputs)
    elif op == "mlp_ancestral_sample":
        for (activation, mlp_op), do in zip(
            mlp_ops.items(), ("shared", "per_sample", "none", "shared"), strict=True
        ):
            for hidden in (3, 40) if activation == "tanh" else (9,):
                yield Problem(mlp_op, tuple(mlp_inputs(batch, d, hidden, do, dtype)))
    else:
        for jac, offset in itertools.product(SHARING, SHARING):
            inputs = sem_inputs(batch, d, "diagonal", jac, offset, dtype)
            if op == "propagate":
                yield Problem(propagate_op, tuple(inputs[:3]))
                continue
            own = (batch,) if offset == "per_sample" else ()
            do = torch.rand(*own, d) < 0.3, inputs.factor if own else inputs.factor.new_ones(d)
            b = torch.linspace(-1, 1, d, dtype=dtype)
            yield Problem(linear_op, (inputs.loc, inputs.jac, b, *do))
            yield Problem(quadratic_op, (inputs.loc, inputs.jac, 0.1 * d**-0.5 * inputs.jac, b, *do))


def outputs_and_gradients(problem: Problem) -> list[Tensor]:
    """By the op, on the device of the inputs."""
    copies = leaves(problem.inputs)
    outputs = as_tuple(problem.op(*copies))
    return [*(o.detach() for o in outputs), *gradients(outputs, copies)]


def gradients(outputs: tuple[Tensor, ...], copies: list[Tensor]) -> tuple[Tensor, ...]:
    upstreams = [
        torch.linspace(0.5, 1.5, o.numel(), dtype=o.dtype, device=o.device).view(o.shape) for o in outputs
    ]
    return torch.autograd.grad(outputs, [t for t in copies if t.requires_grad], upstreams, materialize_grads=True)


def truth(problem: Problem) -> list[Tensor]:
    """By the reference, in float64, on the CPU."""
    copies = leaves(problem.double().inputs)
    outputs = as_tuple(problem.op.reference(*copies))
    return [*(o.detach() for o in outputs), *gradients(outputs, copies)]


def check(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == dtype
        error = gradient_error(a.cpu(), b, batched=False)
        assert error <= RELATIVE[dtype], f"result {k}: {error:.1e}"


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend(BACKEND):
        yield


@pytest.mark.parametrize("op", OPS)
def test_it_is_the_default(op: str) -> None:
    assert backends()[op]["cuda"].available
    assert torch.cuda.get_device_name() in backends()[op]["cuda"].detail


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"B{batch}")
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
@pytest.mark.parametrize("op", OPS)
def test_reference(op: str, d: int, batch: int, dtype: torch.dtype) -> None:
    for problem in problems(op, batch, d, dtype):
        check(outputs_and_gradients(problem.to(DEVICE)), truth(problem), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "d"), [(1500, 5), (1500, 16), (300, 64)])
@pytest.mark.parametrize("op", OPS)
def test_large_batches(op: str, batch: int, d: int, dtype: torch.dtype) -> None:
    """Sums over the batch in several chunks."""
    for problem in problems(op, batch, d, dtype):
        check(outputs_and_gradients(problem.to(DEVICE)), truth(problem), dtype)


@pytest.mark.parametrize("d", EACH_KERNEL)
@pytest.mark.parametrize("op", OPS)
def test_strides(op: str, d: int) -> None:
    """Views with gaps, and expanded ones, give what their copies give."""
    for problem in problems(op, 17, d, torch.float32):
        whole = problem.to(DEVICE)
        gaps = [torch.stack((t, t), -1)[..., 0] for t in whole.inputs]
        outputs, expected = as_tuple(whole.op(*gaps)), as_tuple(whole.op(*whole.inputs))
        assert same_bits(outputs, expected)


@pytest.mark.parametrize("d", EACH_KERNEL)
@pytest.mark.parametrize("op", OPS)
def test_two_runs_give_the_same_bits(op: str, d: int) -> None:
    for problem in problems(op, 300, d, torch.float32):
        on_device = problem.to(DEVICE)
        assert same_bits(outputs_and_gradients(on_device), outputs_and_gradients(on_device))


@pytest.mark.parametrize("d", EACH_KERNEL)
@pytest.mark.parametrize("op", OPS)
def test_another_stream(op: str, d: int) -> None:
    """Launches are on the current stream: behind what that stream still has to do, and before what follows."""
    for problem in problems(op, 17, d, torch.float32):
        inputs = problem.to("cuda")
        expected = outputs_and_gradients(inputs)
        found = on_a_late_stream(
            inputs.inputs,
            lambda *late, op=inputs.op: outputs_and_gradients(Problem(op, late)),  # type: ignore[misc]
        )
        assert same_bits(found, expected)


@pytest.mark.parametrize("d", EACH_KERNEL)
@pytest.mark.parametrize("op", OPS)
def test_cuda_graph(op: str, d: int) -> None:
    """Captured once, replayed on other numbers: no launch synchronises or allocates past torch."""
    for problem in problems(op, 17, d, torch.float32):
        others = problem.to("cuda")
        static = Problem(problem.op, tuple(torch.zeros_like(t) for t in others.inputs))
        copies = leaves(static.inputs)

        def step(op: FusedOp = problem.op, copies: list[Tensor] = copies) -> list[Tensor]:
            outputs = as_tuple(op(*copies))
            return [*(o.detach() for o in outputs), *gradients(outputs, copies)]

        graph, results = captured(step)
        overwrite(copies, others.inputs)
        graph.replay()
        assert same_bits(results, outputs_and_gradients(others))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("op", OPS)
def test_another_device(op: str) -> None:
    """Kernels run where the tensors are, and the current device stays what it was."""
    for problem in problems(op, 17, 40, torch.float32):
        expected = outputs_and_gradients(problem.to("cuda:0"))
        found = outputs_and_gradients(problem.to("cuda:1"))
        assert torch.cuda.current_device() == 0
        assert all(t.device.index == 1 for t in found)
        assert same_bits([t.cpu() for t in found], [t.cpu() for t in expected])


@pytest.mark.parametrize("op", OPS)
def test_tensors_elsewhere(op: str) -> None:
    problem = next(problems(op, 2, 3, torch.float32))
    with pytest.raises(ValueError, match="'cuda' takes tensors on a CUDA device, but they are on cpu"):
        problem.op(*problem.inputs)
