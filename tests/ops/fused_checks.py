"""What PyTorch expects of every op, checked for one of them at one set of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.testing import assert_close

from causalvae_fast.ops._backend import choose_backend
from causalvae_fast.ops._fused import FusedOp

Tensors = Sequence[Tensor]


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def floating(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(t for t in as_tuple(outputs) if t.is_floating_point())


def leaves(inputs: Tensors) -> list[Tensor]:
    """Copies with the same strides, which require a gradient where they can."""
    return [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]


def differentiable(tensors: Tensors) -> list[Tensor]:
    return [t for t in tensors if t.requires_grad]


def loss(outputs: Any) -> Tensor:
    """A scalar that weighs every element of the outputs differently."""
    terms = []
    for k, t in enumerate(floating(outputs)):
        weights = torch.linspace(0.5 + k, 1.5 + k, max(t.numel(), 1), dtype=t.dtype)[: t.numel()]
        terms.append((weights.reshape(t.shape) * t).sum())
    return torch.stack(terms).sum()


def gradients(function: Callable[..., Any], inputs: Tensors, **options: Any) -> tuple[Tensor, ...]:
    copies = leaves(inputs)
    return torch.autograd.grad(loss(function(*copies)), differentiable(copies), **options)


def backend_of(op: FusedOp) -> str:
    """The backend that serves it: the default, or that of `use_backend`."""
    return choose_backend(op.public, None, "cpu")


def check_values(op: FusedOp, inputs: Tensors) -> None:
    """Outputs are those of the reference, indices exactly; with and without a graph the same bits."""
    outputs = as_tuple(op(*leaves(inputs)))
    for found, expected in zip(outputs, as_tuple(op.reference(*inputs)), strict=True):
        if found.is_floating_point():
            assert_close(found.detach(), expected)
        else:
            assert torch.equal(found, expected)
    with torch.no_grad():
        alone = as_tuple(op(*leaves(inputs)))
    for a, b in zip(alone, outputs, strict=True):
        assert torch.equal(a, b.detach())
        assert not a.requires_grad


def check_autograd(op: FusedOp, inputs: Tensors, *, twice: bool = True, symmetric: Sequence[int] = ()) -> None:
    """Inputs in float64: gradients against differences, to second order; the differentiable gradients are those of
    the kernels, again and again.

    `symmetric` are the positions of inputs that are symmetric matrices: differences, which change one element, are
    taken of the op after a projection, as the gradient is defined for symmetric changes only.
    """
    copies = leaves(inputs)
    wanted = tuple(differentiable(copies))

    def function(*some: Tensor) -> tuple[Tensor, ...]:
        given = iter(some)
        tensors = [next(given) if t.requires_grad else t for t in copies]
        return floating(op(*(0.5 * (t + t.mT) if k in symmetric else t for k, t in enumerate(tensors))))

    assert gradcheck(function, wanted)
    assert not twice or gradgradcheck(function, wanted)
    value = loss(op(*copies))
    expected = torch.autograd.grad(value, wanted, retain_graph=True)
    kept = tuple(g.clone() for g in expected)
    for g in expected:
        g.zero_()  # as an optimizer may
    assert_close(torch.autograd.grad(value, wanted, retain_graph=True), kept, rtol=0, atol=0)
    assert_close(torch.autograd.grad(value, wanted, create_graph=True), kept)


def check_reductions(op: FusedOp, inputs: Tensors) -> None:
    """Mean and sum of an op with one output, and their gradients, with an upstream gradient that is not 1."""
    for reduction in ("mean", "sum"):
        ours, expected = leaves(inputs), leaves(inputs)
        value, reference = op.reduce(ours, reduction), getattr(op.reference(*expected), reduction)()
        assert_close(value, reference)
        found = torch.autograd.grad(-3 * value, differentiable(ours))
        assert_close(found, torch.autograd.grad(-3 * reference, differentiable(expected)))
        with torch.no_grad():
            assert_close(op.reduce(inputs, reduction), reference.detach())


def check_each_gradient_alone(op: FusedOp, inputs: Tensors) -> None:
    """Only what is wanted is computed, and it is the same."""
    everything = iter(gradients(op, inputs))
    outputs = as_tuple(op(*inputs))
    upstreams, kept = [torch.ones_like(t) for t in outputs], outputs if op.keeps_outputs else ()
    for k, t in enumerate(inputs):
        if not t.is_floating_point():
            continue
        wanted = [i == k for i in range(len(inputs))]
        computed = op.kernels[backend_of(op)].backward(upstreams, list(inputs), list(kept), wanted)
        assert [g is not None for g in computed] == wanted
        copies = [x.detach().clone() for x in inputs]
        copies[k].requires_grad_()
        assert_close(torch.autograd.grad(loss(op(*copies)), copies[k])[0], next(everything))


QUICK_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def check_library(op: FusedOp, inputs: Tensors, *, symbolic: bool = True) -> None:
    """The ops of torch.library: schema, fake tensors, autograd registration, and with `symbolic`, which takes
    longer than all else, their compilation for shapes that are not known.
    """
    copies = leaves(inputs)
    name = backend_of(op)
    checks = (*QUICK_CHECKS, *(("test_aot_dispatch_dynamic",) if symbolic else ()))
    torch.library.opcheck(op.forward_op, (*copies, name), test_utils=checks)
    outputs = as_tuple(op.forward_op(*inputs, name))
    upstreams = [torch.ones_like(t) for t in outputs]
    kept = outputs if op.keeps_outputs else ()
    wanted = [t.is_floating_point() for t in inputs]
    torch.library.opcheck(op.backward_op, (*upstreams, *copies, *kept, name, wanted), test_utils=checks)


def check_compile(op: FusedOp, inputs: Tensors, backend: str = "aot_eager") -> None:
    """torch.compile(fullgraph=True): values and gradients of eager."""
    with fresh_compiler():
        compiled = torch.compile(lambda *tensors: loss(op(*tensors)).cos(), fullgraph=True, backend=backend)
        ours, expected = leaves(inputs), leaves(inputs)
        value, eager = compiled(*ours), loss(op(*expected)).cos()
        assert_close(value, eager)
        found = torch.autograd.grad(value, differentiable(ours))
        assert_close(found, torch.autograd.grad(eager, differentiable(expected)))
        with torch.no_grad():
            assert_close(compiled(*inputs), eager.detach())


@contextmanager
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check_func(op: FusedOp, inputs: Tensors) -> None:
    """torch.func: reverse and forward mode, and both after each other; forward mode outside of it."""
    wanted = [k for k, t in enumerate(inputs) if t.is_floating_point()]

    def of_wanted(function: Callable[..., Any]) -> Callable[..., Tensor]:
        def call(*some: Tensor) -> Tensor:
            tensors = list(inputs)
            for k, t in zip(wanted, some, strict=True):
                tensors[k] = t
            return loss(function(*tensors)).sin()

        return call

    ours, reference = of_wanted(op), of_wanted(op.reference)
    primals = tuple(inputs[k] for k in wanted)
    tangents = tuple(torch.linspace(-1, 1, t.numel(), dtype=t.dtype).reshape(t.shape) for t in primals)
    argnums = tuple(range(len(wanted)))
    gradient, expected = torch.func.grad(ours, argnums), torch.func.grad(reference, argnums)
    assert_close(gradient(*primals), expected(*primals))
    assert_close(torch.func.jvp(ours, primals, tangents), torch.func.jvp(reference, primals, tangents))
    assert_close(torch.func.jvp(gradient, primals, tangents), torch.func.jvp(expected, primals, tangents))
    for k in argnums:
        assert_close(*(reverse_twice(f, k, argnums)(*primals) for f in (ours, reference)))
    with fresh_compiler():
        compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
        assert_close(compiled(*primals), expected(*primals))
    with dual_level():
        duals = [make_dual(p.clone(), t) for p, t in zip(primals, tangents, strict=True)]
        tangent = unpack_dual(ours(*duals)).tangent
    assert_close(tangent, torch.func.jvp(reference, primals, tangents)[1])


def reverse_twice(function: Callable[..., Tensor], k: int, argnums: tuple[int, ...]) -> Callable[..., Any]:
    return torch.func.grad(lambda *some: loss(torch.func.grad(function, k)(*some)), argnums)


def check_vmap(op: FusedOp, inputs: Tensors) -> None:
    """An ensemble along any dimension of each input, of values and of gradients; and of no members."""
    for k, t in enumerate(inputs):
        members = [t, 0.9 * t, 1.1 * t] if t.is_floating_point() else [t, t, t]
        for dim in (0, -1):
            in_dims = tuple(dim if i == k else None for i in range(len(inputs)))
            stacked = [torch.stack(members, dim) if i == k else x for i, x in enumerate(inputs)]
            found = as_tuple(torch.vmap(op, in_dims)(*stacked))
            each = [as_tuple(op(*(m if i == k else x for i, x in enumerate(inputs)))) for m in members]
            assert_close(found, tuple(torch.stack(column) for column in zip(*each, strict=True)))
        if t.is_floating_point():
            in_dims = tuple(0 if i == k else None for i in range(len(inputs)))
            single = torch.func.grad(lambda *x: loss(op(*x)), k)
            stacked = [torch.stack(members) if i == k else x for i, x in enumerate(inputs)]
            each_gradient = [single(*(m if i == k else x for i, x in enumerate(inputs))) for m in members]
            assert_close(torch.vmap(single, in_dims)(*stacked), torch.stack(each_gradient))
    empty = [t.new_empty(0, *t.shape) for t in inputs]
    for found, expected in zip(as_tuple(torch.vmap(op)(*empty)), as_tuple(op(*inputs)), strict=True):
        assert found.shape == (0, *expected.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "batch_innermost": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0) if t.dim() > 0 else t,
    "every_second_element": lambda t: torch.stack((t, _poison(t)), -1)[..., 0],
    "every_second_row": lambda t: torch.stack((t, _poison(t)), 1)[:, 0] if t.dim() > 0 else t,
    "misaligned": lambda t: torch.cat((_poison(t).flatten()[:1], t.flatten()))[1:].view_as(t),
    "expanded": lambda t: t[:1].expand_as(t) if t.dim() > 0 else t,
}


def _poison(t: Tensor) -> Tensor:
    return torch.full_like(t, math.nan) if t.is_floating_point() else torch.ones_like(t)


def check_layouts(op: FusedOp, inputs: Tensors) -> None:
    """Inputs with gaps, transposed, misaligned or expanded give the same bits as contiguous ones, and NaN where
    those do: a matrix of equal rows need not be one that the op takes.
    """
    for name, layout in LAYOUTS.items():
        upstreams = [layout(numbers(t)) for t in floating(op(*inputs))]
        found = gradients_from(op, inputs, upstreams)
        expected = gradients_from(op, inputs, [u.contiguous() for u in upstreams])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), name
        for changed in [*({k} for k in range(len(inputs))), set(range(len(inputs)))]:
            laid_out = [layout(t) if k in changed else t for k, t in enumerate(inputs)]
            compact = [t.contiguous() for t in laid_out]
            for a, b in zip(everything(op, laid_out), everything(op, compact), strict=True):
                assert torch.allclose(a, b, rtol=0, atol=0, equal_nan=True), (name, changed)


def everything(op: FusedOp, inputs: Tensors) -> tuple[Tensor, ...]:
    """Outputs and gradients at these very tensors, of this layout."""
    given = [t.detach().requires_grad_(t.is_floating_point()) for t in inputs]
    outputs = op(*given)
    return *as_tuple(outputs), *torch.autograd.grad(loss(outputs), differentiable(given))


def numbers(like: Tensor) -> Tensor:
    """All different, none zero."""
    return torch.linspace(1, 2, like.numel(), dtype=like.dtype).reshape(like.shape)


def gradients_from(op: FusedOp, inputs: Tensors, upstreams: Tensors) -> tuple[Tensor, ...]:
    given = leaves(inputs)
    return torch.autograd.grad(floating(op(*given)), differentiable(given), upstreams)


def check_kernels(op: FusedOp, inputs: Tensors, *, symbolic: bool = True) -> None:
    """Those of the above that say something of each backend's kernels, at small inputs in float64."""
    check_values(op, inputs)
    if op.reduces:
        check_reductions(op, inputs)
    check_each_gradient_alone(op, inputs)
    check_library(op, inputs, symbolic=symbolic)
    check_layouts(op, inputs)
    check_compile(op, inputs)


def check_in_pytorch(
    op: FusedOp, inputs: Tensors, *, symmetric: Sequence[int] = (), symbolic: bool = True
) -> None:
    """All of the above, at small inputs in float64."""
    check_kernels(op, inputs, symbolic=symbolic)
    check_autograd(op, inputs, symmetric=symmetric)
    check_func(op, inputs)
    check_vmap(op, inputs)
