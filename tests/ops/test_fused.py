"""FusedOp with toy kernels, and the checks that every op has to pass, at `sem_kl`."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from checks import each_jac, each_posterior
from fused_checks import check_compile, check_in_pytorch, leaves
from inputs import sem_inputs, upstream_gradient
from torch import Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from causalvae_fast.ops import _backend, backends, sem_kl
from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops._outputs import Gradients, Tensors
from causalvae_fast.ops.sem_kl.autograd import sem_kl_op


def squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two outputs, of which the first is kept for the backward pass."""
    return (x * y).exp(), x.square() + y


def squares_backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    (u, v), (x, y) = upstreams, inputs
    grad_x, grad_y = u * y * outputs[0] + 2 * v * x, u * x * outputs[0] + v
    return [g if want else None for g, want in zip((grad_x, grad_y), wanted, strict=True)]


def smallest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A value, and an index, which has no derivative."""
    value, index = (x.unsqueeze(-1) * y).square().min(-1)
    return value, index


def smallest_backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    (x, y), index = inputs, outputs[1]
    grad_x = 2 * upstreams[0] * x * y[index].square()
    grad_y = torch.zeros_like(y).index_add(0, index, 2 * upstreams[0] * x.square() * y[index])
    return [g if want else None for g, want in zip((grad_x, grad_y), wanted, strict=True)]


def masked(x: Tensor, mask: Tensor, y: Tensor) -> Tensor:
    """An input that is not floating point."""
    return torch.where(mask, y, x.square())


def masked_backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    (u,), (x, mask, _) = upstreams, inputs
    gradients = (torch.where(mask, 0, 2 * u * x), None, torch.where(mask, u, 0))
    return [g if want else None for g, want in zip(gradients, wanted, strict=True)]


@pytest.fixture(autouse=True)
def _none_of_the_package() -> Iterator[None]:
    """The toys are known to the choice of a backend in this file only."""
    toys = ("toy_squares", "toy_smallest", "toy_masked")
    for toy in toys:
        _backend.register(toy, ["cpu"])
    yield
    for toy in toys:
        del _backend._OPS[toy]


SQUARES = FusedOp(
    "toy_squares",
    reference=squares,
    fake=lambda x, y: (torch.empty_like(x), torch.empty_like(x)),
    kernels={"cpu": Kernels(squares, squares_backward)},
    outputs=2,
    keeps_outputs=True,
)
SMALLEST = FusedOp(
    "toy_smallest",
    reference=smallest,
    fake=lambda x, y: (torch.empty_like(x), torch.empty_like(x, dtype=torch.int64)),
    kernels={"cpu": Kernels(smallest, smallest_backward)},
    outputs=2,
    keeps_outputs=True,
)
MASKED = FusedOp(
    "toy_masked",
    reference=masked,
    fake=lambda x, mask, y: (torch.empty_like(x),),
    kernels={"cpu": Kernels(lambda *inputs: (masked(*inputs),), masked_backward)},
)
for op in (SQUARES, SMALLEST, MASKED):
    del _backend._OPS[op.name]


def positive(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


PAIR = (positive(4), positive(4, 1))
WITH_MASK = (positive(4), torch.tensor([True, False, False, True]), positive(4, 1))


def test_two_outputs_that_are_kept() -> None:
    check_in_pytorch(SQUARES, PAIR)


def test_an_output_without_a_derivative() -> None:
    check_in_pytorch(SMALLEST, PAIR)


def test_an_input_without_a_derivative() -> None:
    check_in_pytorch(MASKED, WITH_MASK)


@each_jac
@each_posterior
def test_sem_kl_in_pytorch(posterior: str, jac: str) -> None:
    check_in_pytorch(sem_kl_op, sem_inputs(3, 4, posterior, jac), symbolic=jac == "per_sample")


def test_inductor() -> None:
    check_compile(SQUARES, PAIR, backend="inductor")


@pytest.mark.parametrize("k", [0, 1])
def test_one_of_the_outputs_is_used(k: int) -> None:
    ours, expected = leaves(PAIR), leaves(PAIR)
    found = torch.autograd.grad(SQUARES(*ours)[k].sum(), ours)
    assert_close(found, torch.autograd.grad(squares(*expected)[k].sum(), expected))


def test_a_kept_output_that_was_changed_in_place_raises() -> None:
    outputs = SQUARES(*leaves(PAIR))
    outputs[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs[1].sum().backward()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_without_a_kernel_of_their_own(reduction: str) -> None:
    ours, expected = leaves(WITH_MASK), leaves(WITH_MASK)
    value, reference = MASKED.reduce(ours, reduction), getattr(masked(*expected), reduction)()
    assert_close(value, reference)
    assert_close(torch.autograd.grad(value, ours[::2]), torch.autograd.grad(reference, expected[::2]))


def test_an_op_makes_itself_known() -> None:
    assert backends()["sem_kl"].keys() == {"reference", "cpu", "triton"}


def test_activation_checkpointing() -> None:
    ours, expected = leaves(sem_inputs(3, 4)), leaves(sem_inputs(3, 4))
    value = checkpoint(sem_kl_op, *ours, use_reentrant=False)
    found = torch.autograd.grad(value.sum(), ours)
    assert_close(found, torch.autograd.grad(sem_kl_op(*expected).sum(), expected))


def test_export_with_a_batch_of_any_size() -> None:
    jac, offset, log_sigma, loc, scale = sem_inputs(4, 3, "diagonal", "shared", "shared")

    class Model(torch.nn.Module):
        def forward(self, loc: Tensor, scale: Tensor) -> Tensor:
            return sem_kl(jac, offset, log_sigma, loc, scale=scale)

    batch = torch.export.Dim("batch")
    program = torch.export.export(Model(), (loc, scale), dynamic_shapes=({0: batch}, {0: batch}))
    more = sem_inputs(7, 3, "diagonal", "shared", "shared")
    found = program.module()(more.loc, more.factor)
    assert_close(found, sem_kl_op(jac, offset, log_sigma, more.loc, more.factor))


def test_functionalize() -> None:
    inputs = sem_inputs(3, 4)
    assert_close(torch.func.functionalize(sem_kl_op)(*inputs), sem_kl_op(*inputs))


def test_second_derivatives_under_autocast_are_of_float32() -> None:
    """By torch.func, whose rules are the op's own."""
    inputs = sem_inputs(1, 24, dtype=torch.float32)
    hessian = torch.func.hessian(lambda loc: sem_kl_op(*inputs[:3], loc, inputs.factor).sum())
    with torch.autocast("cpu", torch.bfloat16):
        found = hessian(inputs.loc)
    assert_close(found, hessian(inputs.loc))


def test_compiled_transforms() -> None:
    inputs, upstream = sem_inputs(3, 4), upstream_gradient(3, torch.float64)
    gradient = torch.func.grad(lambda loc: (upstream * sem_kl_op(*inputs[:3], loc, inputs.factor)).sum())
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    assert_close(compiled(inputs.loc), gradient(inputs.loc))
