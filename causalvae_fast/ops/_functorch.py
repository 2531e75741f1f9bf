"""The rules by which torch.func, and torch.library, differentiate and vmap an op and its gradients.

All derivatives beyond those that kernels compute come from the op's reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from causalvae_fast.ops._outputs import Tensors, as_tuple, one_or_all, shaped, where_wanted

if TYPE_CHECKING:
    from causalvae_fast.ops._fused import FusedOp


def functorch_functions(op: FusedOp) -> tuple[type[Function], type[Function]]:
    """The Functions that torch.func takes: of the op, and of its gradients, with the rules of both."""
    rules = Rules(op)
    value = {
        "forward": staticmethod(op.forward_op),
        "setup_context": staticmethod(rules.save),
        "backward": staticmethod(rules.backward),
        "jvp": staticmethod(rules.jvp),
        "vmap": staticmethod(rules.vmap),
    }
    gradients = {
        "forward": staticmethod(op.backward_op),
        "setup_context": staticmethod(rules.save_gradients),
        "backward": staticmethod(rules.double_backward),
        "jvp": staticmethod(rules.double_jvp),
        "vmap": staticmethod(rules.vmap_gradients),
    }
    return type("Value", (Function,), value), type("Gradients", (Function,), gradients)


class Rules:
    """How an op, and the op of its gradients, are differentiated and vmapped, in the form of torch.library."""

    def __init__(self, op: FusedOp) -> None:
        self.op = op

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = as_tuple(output)
        *tensors, ctx.backend = inputs
        ctx.floating = [t.is_floating_point() for t in outputs]
        ctx.save_for_backward(*tensors, *(outputs if self.op.keeps_outputs else ()))
        ctx.save_for_forward(*tensors)
        if self.op.outputs > 1:
            ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))

    def backward(self, ctx: Any, *upstreams: Tensor) -> Any:
        op, wanted = self.op, list(ctx.needs_input_grad[:-1])
        apply = op._gradients.apply if torch._C._are_functorch_transforms_active() else op.backward_op
        gradients = as_tuple(apply(*upstreams, *ctx.saved_tensors, ctx.backend, wanted))
        return *where_wanted(gradients, wanted), None

    def jvp(self, ctx: Any, *tangents: Any) -> Any:
        return _push_forward(self.op.reference, ctx.saved_tensors[: self.op.inputs], tangents[:-1], ctx.floating)

    def vmap(self, info: Any, in_dims: Any, *args: Any) -> Any:
        if info.batch_size == 0:
            return _of_no_members(self.op.fake(*_members(args[:-1], in_dims))), self._out_dims(self.op.outputs)
        results = [self.op._value.apply(*_select(args, in_dims, i)) for i in range(info.batch_size)]
        return _stacked(results), self._out_dims(self.op.outputs)

    def save_gradients(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, _, ctx.wanted = inputs
        ctx.floating = [t.is_floating_point() for t in as_tuple(output)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    def double_backward(self, ctx: Any, *upstreams: Tensor) -> Any:
        given, inputs, outputs = self.op._split(ctx.saved_tensors)
        tensors = (*given, *inputs)
        function, chosen = _of_floating(self._reference_gradients(ctx.wanted), tensors)
        with torch.autocast(tensors[0].device.type, enabled=False):
            pullback = torch.func.vjp(function, *(tensors[i] for i in chosen))[1]
            found = pullback(tuple(u for u in upstreams if u.is_floating_point()))
        each = dict(zip(chosen, found, strict=True))
        return *(each.get(i) for i in range(len(tensors))), *(None for _ in outputs), None, None

    def double_jvp(self, ctx: Any, *tangents: Any) -> Any:
        given, inputs, _ = self.op._split(ctx.saved_tensors)
        tensors = (*given, *inputs)
        function = self._reference_gradients(ctx.wanted)
        return _push_forward(function, tensors, tangents[: len(tensors)], ctx.floating)

    def vmap_gradients(self, info: Any, in_dims: Any, *args: Any) -> Any:
        if info.batch_size == 0:
            inputs = self.op._split(_members(args[:-2], in_dims))[1]
            return _of_no_members(shaped(inputs, args[-1])), self._out_dims(self.op.inputs)
        results = [self.op._gradients.apply(*_select(args, in_dims, i)) for i in range(info.batch_size)]
        return _stacked(results), self._out_dims(self.op.inputs)

    def _out_dims(self, results: int) -> int | tuple[int, ...]:
        return 0 if results == 1 else (0,) * results

    def _reference_gradients(self, wanted: Sequence[bool]) -> Callable[..., Any]:
        """The reference of the op of the gradients, as a function of upstream gradients and inputs."""
        chosen = [i for i, want in enumerate(wanted) if want]

        def function(*tensors: Tensor) -> Any:
            upstreams, inputs, _ = self.op._split(tensors)

            def of_chosen(*some: Tensor) -> Any:
                everything = list(inputs)
                for i, tensor in zip(chosen, some, strict=True):
                    everything[i] = tensor
                outputs = as_tuple(self.op.reference(*everything))
                return tuple(o for o in outputs if o.is_floating_point())

            pullback = torch.func.vjp(of_chosen, *(inputs[i] for i in chosen))[1]
            gradients = pullback(tuple(u for u in upstreams if u.is_floating_point())) if chosen else ()
            found = dict(zip(chosen, gradients, strict=True))
            return one_or_all(found.get(i, t.new_empty(0)) for i, t in enumerate(inputs))

        return function


def _of_floating(function: Callable[..., Any], tensors: Tensors) -> tuple[Callable[..., Any], list[int]]:
    """`function` as one of the floating-point tensors, whose indices are returned too, to the tuple of its
    floating-point outputs: what can be differentiated.
    """
    chosen = [i for i, t in enumerate(tensors) if t.is_floating_point()]

    def restricted(*some: Tensor) -> tuple[Tensor, ...]:
        everything = list(tensors)
        for i, t in zip(chosen, some, strict=True):
            everything[i] = t
        return tuple(o for o in as_tuple(function(*everything)) if o.is_floating_point())

    return restricted, chosen


def _push_forward(
    function: Callable[..., Any], inputs: Tensors, tangents: Sequence[Any], floating: Sequence[bool]
) -> Any:
    """The tangents of the outputs, None for those that are not floating point."""
    restricted, chosen = _of_floating(function, inputs)
    # Dual tensors are written in place, which an expanded one does not allow.
    primals = tuple(inputs[i].clone() for i in chosen)
    given = tuple(torch.zeros_like(inputs[i]) if tangents[i] is None else tangents[i].clone() for i in chosen)
    with torch.autocast(inputs[0].device.type, enabled=False):
        found = iter(torch.func.jvp(restricted, primals, given)[1])
    return one_or_all(next(found) if f else None for f in floating)


def _select(args: Sequence[Any], in_dims: Sequence[int | None], index: int) -> list[Any]:
    """The arguments of one element of a vmapped call."""
    return [a.select(dim, index) if isinstance(dim, int) else a for a, dim in zip(args, in_dims, strict=True)]


def _members(args: Sequence[Any], in_dims: Sequence[int | None]) -> list[Any]:
    """Tensors shaped as those of one element of a vmapped call of none."""
    return [
        a if dim is None else a.new_empty([n for i, n in enumerate(a.shape) if i != dim])
        for a, dim in zip(args, in_dims, strict=False)
    ]


def _of_no_members(outputs: Tensors) -> Any:
    return one_or_all(t.new_empty(0, *t.shape) for t in outputs)


def _stacked(results: Sequence[Any]) -> Any:
    return one_or_all(torch.stack(column) for column in zip(*map(as_tuple, results), strict=True))
