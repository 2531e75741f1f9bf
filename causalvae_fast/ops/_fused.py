"""How PyTorch sees an op with kernels of its own: eager, compiled, and under the transforms of torch.func.

Eager, a Function stands directly around the kernels, the shortest path. torch.compile sees the same Function
around opaque ops of torch.library. The transforms of torch.func need Functions of another form, with a vmap rule.
Forward mode, and every derivative beyond the first, go through the op's reference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from causalvae_fast.ops._backend import choose_backend, register

_PLAIN = (Tensor, torch.nn.Parameter)
_KERNELS, _AUTOGRAD, _FUNCTORCH, _DISPATCHER, _REFERENCE = range(5)  # who must see a call of the op

Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]  # one for each input, None where it was not wanted


class Kernels(NamedTuple):
    """The kernels of an op for one type of device. Inputs are valid, outputs new."""

    forward: Callable[..., tuple[Tensor, ...]]  # (*inputs)
    # (upstreams, inputs, outputs, wanted)
    backward: Callable[[Tensors, Tensors, Tensors, Sequence[bool]], Gradients]
    # (inputs, reduction, wanted) -> output, and the gradients of its mean or sum: in one pass, for an op with one
    # output (B,).
    both: Callable[[Tensors, str, Sequence[bool]], tuple[Tensor, Gradients]] | None = None


class FusedOp:
    """An op of tensors with a reference, which defines it, and kernels.

    Args:
        name: a name of its own in torch.library.
        reference: the op in differentiable PyTorch, from the inputs to a tensor or a tuple of them.
        fake: from the inputs to empty outputs of the right shapes and dtypes, without reading values.
        kernels: for tensors on the CPU.
        outputs: how many there are. Those that are not floating point are not differentiable.
        keeps_outputs: whether the backward kernels need the outputs. Then these may not be changed in place.
        public: the function of `causalvae_fast.ops` that it serves, `name` by default.
    """

    def __init__(
        self,
        name: str,
        *,
        reference: Callable[..., Tensor | tuple[Tensor, ...]],
        fake: Callable[..., tuple[Tensor, ...]],
        kernels: Kernels,
        outputs: int = 1,
        keeps_outputs: bool = False,
        public: str | None = None,
    ) -> None:
        self.name = name
        self.public = public or name
        register(self.public)
        self.reference = reference
        self.fake = fake
        self.kernels = kernels
        self.outputs = outputs
        self.keeps_outputs = keeps_outputs
        self.inputs = len(inspect.signature(reference).parameters)
        self._register()
        self._eager, self._reduced = _eager_functions(self)
        self._value, self._gradients = _functorch_functions(self)

    def __call__(self, *inputs: Tensor, backend: str | None = None) -> Any:
        """The output, or the tuple of outputs, by the backend asked for, or chosen."""
        route = self._route(inputs, backend)
        if route == _AUTOGRAD:
            return self._eager.apply(*inputs)
        if route == _REFERENCE:
            return self.reference(*inputs)
        if route == _DISPATCHER:
            return self.forward_op(*inputs)
        if route == _FUNCTORCH:
            return self._value.apply(*inputs)
        return self._forward(*inputs)

    def reduce(self, inputs: Tensors, reduction: str, backend: str | None = None) -> Tensor:
        """The only output, (B,), reduced. With "mean" and "sum", whose upstream gradients are known beforehand,
        value and gradients are computed in one pass.
        """
        if reduction != "none" and self._route(inputs, backend) == _AUTOGRAD:
            return self._reduced.apply(*inputs, reduction)
        return reduce(self(*inputs, backend=backend), reduction)

    def _route(self, inputs: Tensors, backend: str | None) -> int:
        if choose_backend(self.public, backend, inputs[0].device.type) == "reference":
            return _REFERENCE
        if not torch.compiler.is_compiling():
            if torch._C._get_tracing_state() is not None:  # torch.jit.trace records what ATen does, nothing else
                return _REFERENCE
            if _needs_dispatcher(inputs):
                return _DISPATCHER
        if torch._C._are_functorch_transforms_active():
            return _FUNCTORCH
        if forward_ad._current_level >= 0:  # outside torch.func it cannot be nested in a Function's rule
            return _REFERENCE
        if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
            return _AUTOGRAD
        return _KERNELS

    def _forward(self, *inputs: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return self.forward_op(*inputs)
        return _one_or_all(self.kernels.forward(*inputs))

    def _backward(
        self, upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]
    ) -> Gradients:
        if not torch.compiler.is_compiling() and not _needs_dispatcher((*upstreams, *inputs)):
            return self.kernels.backward(upstreams, inputs, outputs, wanted)
        gradients = self.backward_op(*upstreams, *inputs, *outputs, list(wanted))
        return _where_wanted(_as_tuple(gradients), wanted)

    def _both(self, inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        if not torch.compiler.is_compiling() and not _needs_dispatcher(inputs):
            assert self.kernels.both is not None
            return self.kernels.both(inputs, reduction, wanted)
        output, *gradients = self.both_op(*inputs, reduction, list(wanted))
        return output, _where_wanted(gradients, wanted)

    def _register(self) -> None:
        """Defines the ops of torch.library: outputs, gradients, and both where one kernel does."""
        names = list(inspect.signature(self.reference).parameters)
        upstreams = [f"upstream_{k}" for k in range(self.outputs)]
        kept = [f"output_{k}" for k in range(self.outputs)] if self.keeps_outputs else []

        def define(suffix: str, tensors: list[str], options: str, results: int, function: Any) -> Any:
            arguments = ", ".join(f"Tensor {t}" for t in tensors) + options
            result = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
            return torch.library.custom_op(
                f"causalvae_fast::{self.name}{suffix}",
                function,
                mutates_args=(),
                device_types="cpu",
                schema=f"({arguments}) -> {result}",
            )

        def gradients(*args: Any) -> Any:
            given, inputs, outputs = self._split(args[:-1])
            return _one_or_all(_filled(self.kernels.backward(given, inputs, outputs, args[-1]), inputs))

        def fake_gradients(*args: Any) -> Any:
            return _one_or_all(_shaped(self._split(args[:-1])[1], args[-1]))

        n = self.inputs
        self.forward_op = define("", names, "", self.outputs, lambda *t: _one_or_all(self.kernels.forward(*t)))
        self.forward_op.register_fake(lambda *inputs: _one_or_all(self.fake(*inputs)))
        self.backward_op = define("_backward", [*upstreams, *names, *kept], ", bool[] wanted", n, gradients)
        self.backward_op.register_fake(fake_gradients)
        if self.kernels.both is not None:
            both = self.kernels.both

            def value_and_gradients(*args: Any) -> Any:
                *inputs, reduction, wanted = args
                output, found = both(inputs, reduction, wanted)
                return output, *_filled(found, inputs)

            def fake_value_and_gradients(*args: Any) -> Any:
                *inputs, _, wanted = args
                return *self.fake(*inputs), *_shaped(inputs, wanted)

            options = ", str reduction, bool[] wanted"
            self.both_op = define("_both", names, options, 1 + n, value_and_gradients)
            self.both_op.register_fake(fake_value_and_gradients)
        rules = _Rules(self)
        self.forward_op.register_autograd(rules.backward, setup_context=rules.save)
        self.forward_op.register_vmap(rules.vmap)
        self.backward_op.register_autograd(rules.double_backward, setup_context=rules.save_gradients)
        self.backward_op.register_vmap(rules.vmap_gradients)

    def _split(self, tensors: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """Upstream gradients, inputs and outputs: the tensors of the backward op."""
        end = self.outputs + self.inputs
        return tensors[: self.outputs], tensors[self.outputs : end], tensors[end:]


def reduce(value: Tensor, reduction: str) -> Tensor:
    """(B,) to (B,) for "none", to a scalar for "mean" and "sum"."""
    if reduction == "mean":
        return value.mean()
    return value.sum() if reduction == "sum" else value


def _needs_dispatcher(tensors: Tensors) -> bool:
    """Whether a mode (fake tensors, make_fx) or a subclass must see the op: there may be no memory."""
    return torch._C._len_torch_dispatch_stack() > 0 or any(type(t) not in _PLAIN for t in tensors)


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _one_or_all(outputs: Any) -> Any:
    outputs = tuple(outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def _filled(gradients: Sequence[Tensor | None], inputs: Tensors) -> list[Tensor]:
    """Ops of torch.library return tensors: an empty one for a gradient that is not wanted."""
    return [t.new_empty(0) if g is None else g for g, t in zip(gradients, inputs, strict=True)]


def _shaped(inputs: Tensors, wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients without values, as ops of torch.library return them."""
    return [t.new_empty(t.shape if want else 0) for t, want in zip(inputs, wanted, strict=True)]


def _where_wanted(gradients: Tensors, wanted: Sequence[bool]) -> Gradients:
    return [g if want else None for g, want in zip(gradients, wanted, strict=True)]


def _not_differentiable(ctx: Any, outputs: Tensors) -> None:
    ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))


def _eager_functions(op: FusedOp) -> tuple[type[Function], type[Function]]:
    """The Functions around the kernels: of the op, and of its only output with a reduction."""

    class Eager(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            outputs = op._forward(*inputs)
            if op.keeps_outputs:
                ctx.save_for_backward(*inputs, *_as_tuple(outputs))
            else:
                ctx.save_for_backward(*inputs)
            if op.outputs > 1:
                ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))
            return outputs

        @staticmethod
        def backward(ctx: Any, *upstreams: Tensor) -> Any:
            saved, wanted = ctx.saved_tensors, ctx.needs_input_grad
            inputs, outputs = saved[: op.inputs], saved[op.inputs :]
            if _must_be_differentiable(upstreams):
                return tuple(_gradients_of(op.reference, upstreams, inputs, wanted))
            return tuple(op._backward(upstreams, inputs, outputs, wanted))

    class Reduced(Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Tensor:
            inputs, ctx.reduction = args[:-1], args[-1]
            ctx.save_for_backward(*inputs)
            output, ctx.gradients = op._both(inputs, ctx.reduction, ctx.needs_input_grad[:-1])
            return reduce(output, ctx.reduction)

        @staticmethod
        def backward(ctx: Any, *upstreams: Tensor) -> Any:
            inputs, reduction, wanted = ctx.saved_tensors, ctx.reduction, ctx.needs_input_grad[:-1]
            if _must_be_differentiable(upstreams):
                reduced = lambda *tensors: reduce(op.reference(*tensors), reduction)  # type: ignore[arg-type]  # noqa: E731
                return *_gradients_of(reduced, upstreams, inputs, wanted), None
            # The buffers are given away, so that they can become the .grad of a leaf without a copy. A second
            # backward pass through the same graph computes them again.
            gradients, ctx.gradients = ctx.gradients, None
            if gradients is None:
                _, gradients = op._both(inputs, reduction, wanted)
            return *_scaled(gradients, upstreams[0]), None

    name = "".join(part.capitalize() for part in op.name.split("_"))
    return type(name, (Eager,), {}), type(name, (Reduced,), {})


def _must_be_differentiable(upstreams: Tensors) -> bool:
    """With create_graph=True the gradients must be differentiable themselves; with is_grads_batched=True, an
    upstream is a batch in disguise, which has no memory.
    """
    return torch.is_grad_enabled() or (
        not torch.compiler.is_compiling()
        and any(
            torch._C._functorch.is_legacy_batchedtensor(u) or torch._C._functorch.is_functorch_wrapped_tensor(u)
            for u in upstreams
        )
    )


def _gradients_of(
    reference: Callable[..., Any], upstreams: Tensors, inputs: Tensors, wanted: Sequence[bool]
) -> Gradients:
    """Gradients of sum upstream output as differentiable functions of `upstreams` and the inputs."""
    with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        # A node of its own for each input: through one that depends on another, gradients would pass twice.
        inputs = [t.view_as(t) for t in inputs]
        outputs = _as_tuple(reference(*inputs))
        used = [(o, u.expand_as(o)) for o, u in zip(outputs, upstreams, strict=True) if o.requires_grad]
        differentiated = [t for t, want in zip(inputs, wanted, strict=True) if want]
        values, seeds = zip(*used, strict=True)
        found = iter(torch.autograd.grad(values, differentiated, seeds, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def _scaled(gradients: Gradients, upstream: Tensor) -> Gradients:
    if torch.compiler.is_compiling():  # a compiled backward may run again on the same gradients
        return [None if g is None else g * upstream for g in gradients]
    if upstream.item() == 1:
        return gradients
    return [None if g is None else g.mul_(upstream) for g in gradients]


def _functorch_functions(op: FusedOp) -> tuple[type[Function], type[Function]]:
    """The Functions that torch.func takes: of the op, and of its gradients, with the rules of both."""
    rules = _Rules(op)
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


class _Rules:
    """How an op, and the op of its gradients, are differentiated and vmapped, in the form of torch.library."""

    def __init__(self, op: FusedOp) -> None:
        self.op = op

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = _as_tuple(output)
        ctx.save_for_backward(*inputs, *(outputs if self.op.keeps_outputs else ()))
        ctx.save_for_forward(*inputs)
        if self.op.outputs > 1:
            ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))

    def backward(self, ctx: Any, *upstreams: Tensor) -> Any:
        op, wanted = self.op, list(ctx.needs_input_grad)
        apply = op._gradients.apply if torch._C._are_functorch_transforms_active() else op.backward_op
        gradients = _as_tuple(apply(*upstreams, *ctx.saved_tensors, wanted))
        return tuple(_where_wanted(gradients, wanted))

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Any:
        outputs = _as_tuple(_push_forward(self.op.reference, ctx.saved_tensors[: self.op.inputs], tangents))
        return _one_or_all(t if t.is_floating_point() else None for t in outputs)

    def vmap(self, info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        if info.batch_size == 0:
            return _of_no_members(self.op.fake(*_members(inputs, in_dims))), self._out_dims(self.op.outputs)
        results = [self.op._value.apply(*_select(inputs, in_dims, i)) for i in range(info.batch_size)]
        return _stacked(results), self._out_dims(self.op.outputs)

    def save_gradients(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.wanted = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    def double_backward(self, ctx: Any, *upstreams: Tensor) -> Any:
        given, inputs, outputs = self.op._split(ctx.saved_tensors)
        tensors = (*given, *inputs)
        function, places = _of_floating(self._reference_gradients(ctx.wanted), tensors)
        pullback = torch.func.vjp(function, *(tensors[i] for i in places))[1]
        found = dict(zip(places, pullback(_one_or_all(upstreams)), strict=True))
        return *(found.get(i) for i in range(len(tensors))), *(None for _ in outputs), None

    def double_jvp(self, ctx: Any, *tangents: Any) -> Any:
        given, inputs, _ = self.op._split(ctx.saved_tensors)
        count = len(given) + len(inputs)
        return _push_forward(self._reference_gradients(ctx.wanted), (*given, *inputs), tangents[:count])

    def vmap_gradients(self, info: Any, in_dims: Any, *args: Any) -> Any:
        if info.batch_size == 0:
            inputs = self.op._split(_members(args[:-1], in_dims))[1]
            return _of_no_members(_shaped(inputs, args[-1])), self._out_dims(self.op.inputs)
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
                return _one_or_all(t for t in _as_tuple(self.op.reference(*everything)) if t.is_floating_point())

            pullback = torch.func.vjp(of_chosen, *(inputs[i] for i in chosen))[1]
            seeds = _one_or_all(u for u in upstreams if u.is_floating_point())
            found = dict(zip(chosen, pullback(seeds), strict=True)) if chosen else {}
            return _one_or_all(found.get(i, t.new_empty(0)) for i, t in enumerate(inputs))

        return function


def _of_floating(function: Callable[..., Any], tensors: Tensors) -> tuple[Callable[..., Any], list[int]]:
    """The function of its floating-point arguments alone, and their places; the others are constants."""
    places = [i for i, t in enumerate(tensors) if t.is_floating_point()]

    def of_floating(*some: Tensor) -> Any:
        everything = list(tensors)
        for i, tensor in zip(places, some, strict=True):
            everything[i] = tensor
        return function(*everything)

    return of_floating, places


def _push_forward(function: Callable[..., Any], inputs: Tensors, tangents: Sequence[Any]) -> Any:
    given = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True))
    floating, places = _of_floating(function, inputs)
    # Dual tensors are written in place, which an expanded one does not allow.
    primals, duals = (tuple(t[i].clone() for i in places) for t in (inputs, given))
    return torch.func.jvp(floating, primals, duals)[1]


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
    return _one_or_all(t.new_empty(0, *t.shape) for t in outputs)


def _stacked(results: Sequence[Any]) -> Any:
    return _one_or_all(torch.stack(column) for column in zip(*map(_as_tuple, results), strict=True))
