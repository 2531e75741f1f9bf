"""How PyTorch sees an op with kernels of its own: eager, compiled, and under the transforms of torch.func.

Eager, a Function stands directly around the kernels, the shortest path. torch.compile sees the same Function
around opaque ops of torch.library. The transforms of torch.func need Functions of another form, with a vmap rule.
Forward mode, and every derivative beyond the first, go through the op's reference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import Parameter

from causalvae_fast.ops import _native
from causalvae_fast.ops._backend import choose_backend, register
from causalvae_fast.ops._functorch import Rules, functorch_functions
from causalvae_fast.ops._outputs import Gradients, Tensors, as_tuple, filled, one_or_all, shaped, where_wanted

_KERNELS, _AUTOGRAD, _FUNCTORCH, _DISPATCHER, _REFERENCE = range(5)  # who must see a call of the op


class Kernels(NamedTuple):
    """The kernels of an op in one backend. Inputs are valid, outputs new."""

    forward: Callable[..., tuple[Tensor, ...]]  # (*inputs)
    # (upstreams, inputs, outputs, wanted); a gradient that is wanted is a tensor, if need be of zeros
    backward: Callable[[Tensors, Tensors, Tensors, Sequence[bool]], Gradients]
    # (inputs, reduction, wanted) -> the mean or sum of the only output, (B,), and its gradients, in one pass.
    reduced: Callable[[Tensors, str, Sequence[bool]], tuple[Tensor, Gradients]] | None = None


class FusedOp:
    """An op of tensors with a reference, which defines it, and kernels.

    What is no tensor (a mode, an activation) makes another FusedOp of each choice.

    Args:
        name: a name of its own in torch.library.
        reference: the op in differentiable PyTorch, from the inputs to a tensor or a tuple of them.
        fake: from the inputs to empty outputs of the right shapes and dtypes, without reading values.
        kernels: by the name of the backend (ops/_backend.py). All have a reduction, or none has.
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
        kernels: Mapping[str, Kernels],
        outputs: int = 1,
        keeps_outputs: bool = False,
        public: str | None = None,
    ) -> None:
        self.name = name
        self.public = public or name
        register(self.public, kernels)
        self.reference = reference
        self.fake = fake
        self.kernels = dict(kernels)
        self.reduces = all(k.reduced is not None for k in kernels.values())
        self.outputs = outputs
        self.keeps_outputs = keeps_outputs
        self.inputs = len(inspect.signature(reference).parameters)
        self._register()
        self._eager, self._eager_reduced = _eager_functions(self)
        # Without the preparations of Function.apply for torch.func, which takes no part in ordinary calls.
        self._apply: Callable[..., Any] = super(Function, self._eager).apply  # type: ignore[misc]
        self._apply_reduced: Callable[..., Any] = super(Function, self._eager_reduced).apply  # type: ignore[misc]
        self._value, self._gradients = functorch_functions(self)

    def __call__(self, *inputs: Tensor, backend: str | None = None, ordinary: bool = False) -> Any:
        """The output, or the tuple of outputs, by the backend asked for, or chosen.

        `ordinary` calls are those that `_checks.remembered` knows to be so.
        """
        route, name = self._route(inputs, backend, ordinary)
        if route == _AUTOGRAD:
            return self._apply(name, *inputs) if ordinary else self._eager.apply(name, *_distinct(inputs))
        if route == _REFERENCE:
            return self.reference(*inputs)
        if route == _DISPATCHER:
            return self.forward_op(*inputs, name)
        if route == _FUNCTORCH:
            return self._value.apply(*inputs, name)
        return self._forward(name, *inputs)

    def reduce(
        self, inputs: Tensors, reduction: str, backend: str | None = None, ordinary: bool = False
    ) -> Tensor:
        """The only output, (B,), reduced. With "mean" and "sum", whose upstream gradients are known beforehand,
        value and gradients are computed in one pass.
        """
        if reduction != "none" and self.reduces:
            route, name = self._route(inputs, backend, ordinary)
            if route == _AUTOGRAD:
                if ordinary:
                    return self._apply_reduced(name, *inputs, reduction)
                return self._eager_reduced.apply(name, *_distinct(inputs), reduction)
            if route == _KERNELS:
                return self._mean_or_sum(name, inputs, reduction, (False,) * self.inputs)[0]
        return reduce(self(*inputs, backend=backend, ordinary=ordinary), reduction)

    def _route(self, inputs: Tensors, backend: str | None, ordinary: bool) -> tuple[int, str]:
        """Who must see the call, and the backend that serves it."""
        name = choose_backend(self.public, backend, "cpu" if ordinary else inputs[0].device.type)
        if name == "reference":
            return _REFERENCE, name
        if not ordinary:
            route = self._extraordinary_route(inputs)
            if route is not None:
                return route, name
        if torch.is_grad_enabled():
            for tensor in inputs:  # any() takes three times as long
                if tensor.requires_grad:
                    return _AUTOGRAD, name
        return _KERNELS, name

    def _extraordinary_route(self, inputs: Tensors) -> int | None:
        if not torch.compiler.is_compiling():
            if torch._C._get_tracing_state() is not None:  # torch.jit.trace records what ATen does, nothing else
                return _REFERENCE
            if _needs_dispatcher(inputs):
                return _DISPATCHER
        if torch._C._are_functorch_transforms_active():
            if torch.compiler.is_compiling():  # it traces no Function under a transform
                return _REFERENCE
            transform = torch._C._functorch.peek_interpreter_stack().key()
            functionalize = torch._C._functorch.TransformType.Functionalize
            return _DISPATCHER if transform == functionalize else _FUNCTORCH
        if forward_ad._current_level >= 0:  # outside torch.func it cannot be nested in a Function's rule
            return _REFERENCE
        return None

    # The passes of the Functions. The route of a call has seen to it that the forward pass needs no dispatcher.

    def _forward(self, name: str, *inputs: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return self.forward_op(*inputs, name)
        return one_or_all(self.kernels[name].forward(*inputs))

    def _backward(
        self,
        name: str,
        upstreams: Tensors,
        inputs: Tensors,
        outputs: Tensors,
        wanted: Sequence[bool],
        ordinary: bool,
    ) -> Gradients:
        if ordinary or not (torch.compiler.is_compiling() or _needs_dispatcher((*upstreams, *inputs))):
            return self.kernels[name].backward(upstreams, inputs, outputs, wanted)
        gradients = self.backward_op(*upstreams, *inputs, *outputs, name, list(wanted))
        return where_wanted(as_tuple(gradients), wanted)

    def __deepcopy__(self, memo: object) -> FusedOp:
        return self  # as a function is

    def _mean_or_sum(
        self, name: str, inputs: Tensors, reduction: str, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        if torch.compiler.is_compiling():
            return self._mean_or_sum_by_dispatcher(name, inputs, reduction, wanted)
        return self._reduced(name, inputs, reduction, wanted)

    def _mean_or_sum_again(self, name: str, inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> Gradients:
        if _needs_dispatcher(inputs):
            return self._mean_or_sum_by_dispatcher(name, inputs, reduction, wanted)[1]
        return self._mean_or_sum(name, inputs, reduction, wanted)[1]

    def _mean_or_sum_by_dispatcher(
        self, name: str, inputs: Tensors, reduction: str, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        output, *gradients = self.reduced_op(*inputs, name, reduction, list(wanted))
        return output, where_wanted(gradients, wanted)

    def _reduced(self, name: str, *args: Any) -> tuple[Tensor, Gradients]:
        reduced = self.kernels[name].reduced
        assert reduced is not None
        return reduced(*args)

    def _register(self) -> None:
        """Defines the ops of torch.library: outputs, gradients, and the reductions with theirs."""
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
                device_types=("cpu", "cuda"),
                schema=f"({arguments}) -> {result}",
            )

        def gradients(*args: Any) -> Any:
            *tensors, name, wanted = args
            given, inputs, outputs = self._split(tensors)
            return one_or_all(filled(self.kernels[name].backward(given, inputs, outputs, wanted), inputs))

        def fake_gradients(*args: Any) -> Any:
            *tensors, _, wanted = args
            return one_or_all(shaped(self._split(tensors)[1], wanted))

        def values(*args: Any) -> Any:
            *inputs, name = args
            return one_or_all(self.kernels[name].forward(*inputs))

        n = self.inputs
        self.forward_op = define("", names, ", str backend", self.outputs, values)
        self.forward_op.register_fake(lambda *args: one_or_all(self.fake(*args[:-1])))
        options = ", str backend, bool[] wanted"
        self.backward_op = define("_backward", [*upstreams, *names, *kept], options, n, gradients)
        self.backward_op.register_fake(fake_gradients)
        if self.reduces:

            def value_and_gradients(*args: Any) -> Any:
                *inputs, name, reduction, wanted = args
                output, found = self._reduced(name, inputs, reduction, wanted)
                return output, *filled(found, inputs)

            def fake_value_and_gradients(*args: Any) -> Any:
                *inputs, _, _, wanted = args
                return self.fake(*inputs)[0].new_empty(()), *shaped(inputs, wanted)

            options = ", str backend, str reduction, bool[] wanted"
            self.reduced_op = define("_reduced", names, options, 1 + n, value_and_gradients)
            self.reduced_op.register_fake(fake_value_and_gradients)
        rules = Rules(self)
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


def _distinct(inputs: Tensors) -> Tensors:
    """While torch.compile traces: no tensor twice, since it takes no Function of that kind."""
    if not torch.compiler.is_compiling():
        return inputs
    found: list[Tensor] = []
    for tensor in inputs:
        found.append(tensor.view_as(tensor) if any(tensor is other for other in found) else tensor)
    return found


def _needs_dispatcher(tensors: Tensors) -> bool:
    """Whether a mode (fake tensors, make_fx) or a subclass must see the op: there may be no memory."""
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    for tensor in tensors:  # noqa: SIM110  # any() takes three times as long
        if type(tensor) is not Tensor and type(tensor) is not Parameter:
            return True
    return False


def _eager_functions(op: FusedOp) -> tuple[type[Function], type[Function]]:
    """The Functions around the kernels: of the op, and of its only output with a reduction."""

    class Eager(Function):
        @staticmethod
        def forward(ctx: Any, name: str, *inputs: Any) -> Any:
            ctx.backend = name
            outputs = op._forward(name, *inputs)
            if op.keeps_outputs:
                ctx.save_for_backward(*inputs, *as_tuple(outputs))
            else:
                ctx.save_for_backward(*inputs)
            if op.outputs > 1:
                ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))
            return outputs

        @staticmethod
        def backward(ctx: Any, *upstreams: Tensor) -> Any:
            saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
            inputs, outputs = saved[: op.inputs], saved[op.inputs :]
            ordinary = _native.signature(upstreams) is not None
            if _must_be_differentiable(upstreams, ordinary):
                return None, *_gradients_of(op.reference, upstreams, inputs, wanted)
            return None, *op._backward(ctx.backend, upstreams, inputs, outputs, wanted, ordinary)

    class Reduced(Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Tensor:
            ctx.backend, *inputs, ctx.reduction = args
            ctx.save_for_backward(*inputs)
            wanted = ctx.needs_input_grad[1:-1]
            output, ctx.gradients = op._mean_or_sum(ctx.backend, inputs, ctx.reduction, wanted)
            return output

        @staticmethod
        def backward(ctx: Any, *upstreams: Tensor) -> Any:
            # Looked at even if they are not needed: inputs that were changed in place have to raise.
            inputs, reduction, wanted = ctx.saved_tensors, ctx.reduction, ctx.needs_input_grad[1:-1]
            # Read without PyTorch's dispatcher, which takes ten times as long where caches are cold.
            factor = None if torch.compiler.is_compiling() else _native.first_element(upstreams[0])
            if _must_be_differentiable(upstreams, factor is not None):
                reduced = lambda *tensors: reduce(op.reference(*tensors), reduction)  # type: ignore[arg-type]  # noqa: E731
                return None, *_gradients_of(reduced, upstreams, inputs, wanted), None
            # The buffers are given away, so that they can become the .grad of a leaf without a copy. A second
            # backward pass through the same graph computes them again.
            gradients, ctx.gradients = ctx.gradients, None
            if gradients is None:
                gradients = op._mean_or_sum_again(ctx.backend, inputs, reduction, wanted)
            return None, *_scaled(gradients, upstreams[0], factor), None

    name = "".join(part.capitalize() for part in op.name.split("_"))
    return type(name, (Eager,), {}), type(name, (Reduced,), {})


def _must_be_differentiable(upstreams: Tensors, ordinary: bool) -> bool:
    """With create_graph=True the gradients must be differentiable themselves; with is_grads_batched=True, an
    upstream is a batch in disguise, which has no memory.
    """
    if torch.is_grad_enabled():
        return True
    if ordinary or torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    return any(functorch.is_legacy_batchedtensor(u) or functorch.is_functorch_wrapped_tensor(u) for u in upstreams)


def _gradients_of(
    reference: Callable[..., Any], upstreams: Tensors, inputs: Tensors, wanted: Sequence[bool]
) -> Gradients:
    """Gradients of sum upstream output as differentiable functions of `upstreams` and the inputs."""
    with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        # A node of its own for each input: through one that depends on another, gradients would pass twice.
        inputs = [t.view_as(t) for t in inputs]
        outputs = as_tuple(reference(*inputs))
        used = [(o, u.expand_as(o)) for o, u in zip(outputs, upstreams, strict=True) if o.requires_grad]
        differentiated = [t for t, want in zip(inputs, wanted, strict=True) if want]
        if not used:
            return [torch.zeros_like(t) if want else None for t, want in zip(inputs, wanted, strict=True)]
        values, seeds = zip(*used, strict=True)
        found = iter(torch.autograd.grad(values, differentiated, seeds, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def _scaled(gradients: Gradients, upstream: Tensor, factor: float | None) -> Gradients:
    """The gradients times `upstream`, whose value is `factor`, unless that is not known."""
    if factor is None:  # a compiled backward, which may run again on the same gradients
        return [None if g is None else g * upstream for g in gradients]
    if factor == 1:
        return gradients
    return [None if g is None else g.mul_(upstream) for g in gradients]
