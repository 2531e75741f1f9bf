"""`sem_kl` as PyTorch sees it: eager, compiled, and under the transforms of torch.func.

Eager, the Function `SEMKL` stands directly around the kernel, the shortest path. torch.compile sees the same
Function around opaque ops of torch.library. The transforms of torch.func need Functions of another form, with a
vmap rule: `Value` and `ValueAndGrad`. They and the ops share their rules.

A scalar reduction has the same upstream gradient for every sample, so its gradients come from the forward pass,
together with the value. Without reduction they come from the backward pass, where the upstream gradients are
known: storing them unscaled would cost another pass over the (B, d, d) gradients to scale them, and is impossible
where they are summed over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

_PLAIN = (Tensor, torch.nn.Parameter)
_INPUTS = 5  # jac, offset, log_sigma, loc, and factor: scale (B, d) or scale_tril (B, d, d)


def sem_kl_on_cpu(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor, reduction: str
) -> Tensor:
    """The KL of each sample (B,), or its mean or sum, by the CPU kernels."""
    inputs = (jac, offset, log_sigma, loc, factor)
    if not torch.compiler.is_compiling():
        if torch._C._get_tracing_state() is not None:  # torch.jit.trace records what ATen does, and nothing else
            return reduce(sem_kl_reference(*inputs), reduction)
        if _needs_dispatcher(inputs):
            return reduce(sem_kl_op(*inputs), reduction)
    if torch._C._are_functorch_transforms_active():
        return reduce(Value.apply(*inputs), reduction)
    if forward_ad._current_level >= 0:  # forward mode outside torch.func cannot be nested in a Function's rule
        return reduce(sem_kl_reference(*inputs), reduction)
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return SEMKL.apply(*inputs, reduction)
    return reduce(_value(*inputs), reduction)


def _needs_dispatcher(tensors: Sequence[Tensor]) -> bool:
    """Whether a mode (fake tensors, make_fx) or a subclass must see the op: there may be no memory."""
    return torch._C._len_torch_dispatch_stack() > 0 or any(type(t) not in _PLAIN for t in tensors)


def reduce(value: Tensor, reduction: str) -> Tensor:
    """(B,) to (B,) for "none", to a scalar for "mean" and "sum"."""
    if reduction == "mean":
        return value.mean()
    return value.sum() if reduction == "sum" else value


class SEMKL(torch.autograd.Function):
    """The KL of a batch with a reduction; gradients once by the kernels, any further by the reference."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        inputs, reduction = args[:_INPUTS], args[_INPUTS]
        ctx.save_for_backward(*inputs)
        ctx.reduction = reduction
        ctx.gradients = None
        if reduction == "none":
            return _value(*inputs)
        value, ctx.gradients = _value_and_grad(
            _upstream(reduction, inputs[3]), inputs, ctx.needs_input_grad[:_INPUTS]
        )
        return reduce(value, reduction)

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:_INPUTS]
        # With create_graph=True the gradients must be differentiable themselves; with is_grads_batched=True,
        # `upstream` is a batch in disguise, which has no memory.
        batched = not torch.compiler.is_compiling() and (
            torch._C._functorch.is_legacy_batchedtensor(upstream)
            or torch._C._functorch.is_functorch_wrapped_tensor(upstream)
        )
        if torch.is_grad_enabled() or batched:
            upstream = upstream * _upstream(ctx.reduction, inputs[3])
            return *_reference_gradients(upstream, inputs, wanted), None
        if ctx.reduction == "none":
            return *_value_and_grad(upstream, inputs, wanted)[1], None
        # The buffers are given away, so that they can become the .grad of a leaf without a copy. A second
        # backward pass through the same graph computes them again.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _value_and_grad(_upstream(ctx.reduction, inputs[3]), inputs, wanted)
        return *_scaled(gradients, upstream), None


def _upstream(reduction: str, loc: Tensor) -> Tensor:
    """The gradient of the reduced value with respect to each KL, a scalar."""
    return loc.new_full((), 1 / max(loc.shape[0], 1) if reduction == "mean" else 1.0)


def _scaled(gradients: Sequence[Tensor | None], upstream: Tensor) -> list[Tensor | None]:
    if torch.compiler.is_compiling():  # a compiled backward may run again on the same gradients
        return [None if g is None else g * upstream for g in gradients]
    if upstream.item() == 1:
        return list(gradients)
    return [None if g is None else g.mul_(upstream) for g in gradients]


def _reference_gradients(
    upstream: Tensor, inputs: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of sum_b upstream_b KL_b as differentiable functions of `upstream` and the inputs."""
    with torch.enable_grad(), torch.autocast(upstream.device.type, enabled=False):
        # A node of its own for each input: through one that depends on another, gradients would pass twice.
        inputs = [t.view_as(t) for t in inputs]
        value = sem_kl_reference(*inputs)
        differentiated = [t for t, want in zip(inputs, wanted, strict=True) if want]
        gradients = iter(torch.autograd.grad(value, differentiated, upstream.expand_as(value), create_graph=True))
    return [next(gradients) if want else None for want in wanted]


def _value(*inputs: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return sem_kl_op(*inputs)
    return sem_kl_cpu(*inputs)[0]


def _value_and_grad(
    upstream: Tensor, inputs: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The value and the five gradients, None where not wanted."""
    if not torch.compiler.is_compiling() and not _needs_dispatcher((upstream, *inputs)):
        return sem_kl_cpu(*inputs, upstream=upstream, wanted=wanted)
    value, *gradients = sem_kl_value_and_grad_op(upstream, *inputs, list(wanted))
    return value, [g if want else None for g, want in zip(gradients, wanted, strict=True)]


@torch.library.custom_op("causalvae_fast::sem_kl", mutates_args=(), device_types="cpu")
def sem_kl_op(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """The KL of each sample, (B,)."""
    return sem_kl_cpu(jac, offset, log_sigma, loc, factor)[0]


@torch.library.custom_op("causalvae_fast::sem_kl_value_and_grad", mutates_args=(), device_types="cpu")
def sem_kl_value_and_grad_op(
    upstream: Tensor,
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    factor: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The KL of each sample, (B,), and the gradients of sum_b upstream_b KL_b; those not wanted are empty."""
    value, gradients = sem_kl_cpu(jac, offset, log_sigma, loc, factor, upstream=upstream, wanted=wanted)
    a, b, s, m, f = (loc.new_empty(0) if g is None else g for g in gradients)
    return value, a, b, s, m, f


@sem_kl_op.register_fake
def _(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    return loc.new_empty(loc.shape[0])


@sem_kl_value_and_grad_op.register_fake
def _(upstream: Tensor, *args: Any) -> tuple[Tensor, ...]:
    inputs, wanted = args[:_INPUTS], args[_INPUTS]
    gradients = (t.new_empty(t.shape if want else 0) for t, want in zip(inputs, wanted, strict=True))
    return inputs[3].new_empty(inputs[3].shape[0]), *gradients


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)
    ctx.save_for_forward(*inputs)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad)
    apply = ValueAndGrad.apply if torch._C._are_functorch_transforms_active() else sem_kl_value_and_grad_op
    _, *gradients = apply(upstream, *ctx.saved_tensors, wanted)
    return tuple(g if want else None for g, want in zip(gradients, wanted, strict=True))


def _jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    return _push_forward(sem_kl_reference, ctx.saved_tensors, tangents)


def _save_all(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.wanted = inputs
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _value_and_gradients(wanted: Sequence[bool]) -> Callable[..., tuple[Tensor, ...]]:
    """The reference of `sem_kl_value_and_grad_op`, as a function of its tensors."""
    argnums = tuple(i for i, want in enumerate(wanted) if want)

    def function(upstream: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        def total(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            value = sem_kl_reference(*inputs)
            return (upstream * value).sum(), value

        gradient: Callable[..., Any] = torch.func.grad(total, argnums, has_aux=True)
        found, value = gradient(*inputs)
        gradients = iter(found)
        return value, *(next(gradients) if want else value.new_empty(0) for want in wanted)

    return function


def _double_backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
    pullback = torch.func.vjp(_value_and_gradients(ctx.wanted), *ctx.saved_tensors)[1]
    return *pullback(upstreams), None


def _double_jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
    return _push_forward(_value_and_gradients(ctx.wanted), ctx.saved_tensors, tangents[:-1])


def _push_forward(function: Callable[..., Any], inputs: Sequence[Tensor], tangents: Sequence[Any]) -> Any:
    given = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True))
    # Dual tensors are written in place, which an expanded one does not allow.
    return torch.func.jvp(function, tuple(x.clone() for x in inputs), tuple(t.clone() for t in given))[1]


def _vmap_value(info: Any, in_dims: Any, *inputs: Tensor) -> tuple[Tensor, int]:
    if info.batch_size == 0:
        return torch.vmap(sem_kl_reference, in_dims)(*inputs), 0
    return torch.stack([Value.apply(*_select(inputs, in_dims, i)) for i in range(info.batch_size)]), 0


def _vmap_value_and_grad(info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    out_dims = (0,) * (1 + _INPUTS)
    if info.batch_size == 0:
        return torch.vmap(_value_and_gradients(args[-1]), in_dims[:-1])(*args[:-1]), out_dims
    outputs = [ValueAndGrad.apply(*_select(args, in_dims, i)) for i in range(info.batch_size)]
    return tuple(torch.stack(column) for column in zip(*outputs, strict=True)), out_dims


def _select(args: Sequence[Any], in_dims: Sequence[int | None], index: int) -> list[Any]:
    """The arguments of one element of a vmapped call."""
    return [a.select(dim, index) if isinstance(dim, int) else a for a, dim in zip(args, in_dims, strict=True)]


class Value(torch.autograd.Function):
    """The KL of each sample, for torch.func."""

    forward = staticmethod(sem_kl_op)
    setup_context = staticmethod(_save_inputs)
    backward = staticmethod(_backward)
    jvp = staticmethod(_jvp)
    vmap = staticmethod(_vmap_value)


class ValueAndGrad(torch.autograd.Function):
    """The KL of each sample and its gradients, for torch.func."""

    forward = staticmethod(sem_kl_value_and_grad_op)
    setup_context = staticmethod(_save_all)
    backward = staticmethod(_double_backward)
    jvp = staticmethod(_double_jvp)
    vmap = staticmethod(_vmap_value_and_grad)


sem_kl_op.register_autograd(_backward, setup_context=_save_inputs)
sem_kl_op.register_vmap(_vmap_value)
sem_kl_value_and_grad_op.register_autograd(_double_backward, setup_context=_save_all)
sem_kl_value_and_grad_op.register_vmap(_vmap_value_and_grad)
