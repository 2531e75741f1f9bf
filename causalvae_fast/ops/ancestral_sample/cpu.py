"""The CPU backend of `ancestral_sample`: one call into the compiled kernels (csrc/ops/ancestral_sample)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty_like, without_gaps
from causalvae_fast.ops._outputs import Gradients, Tensors


def linear_cpu(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d)
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
    *,
    isa: str = "",  # the best one by default
) -> tuple[Tensor]:
    """z (N, d)."""
    return _forward(noise, jac, None, offset, do_mask, do_values, isa)


def quadratic_cpu(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d)
    quadratic: Tensor,  # like jac
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
    *,
    isa: str = "",  # the best one by default
) -> tuple[Tensor]:
    """z (N, d)."""
    return _forward(noise, jac, quadratic, offset, do_mask, do_values, isa)


def linear_backward_cpu(
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, jac, offset, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    noise, jac, offset, do_mask, do_values = inputs
    asked = [*wanted[:2], False, *wanted[2:]]
    found = _backward(upstreams[0], noise, jac, None, offset, do_mask, do_values, outputs[0], asked, isa)
    return [*found[:2], *found[3:]]


def quadratic_backward_cpu(
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, jac, quadratic, offset, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    noise, jac, quadratic, offset, do_mask, do_values = inputs
    return _backward(upstreams[0], noise, jac, quadratic, offset, do_mask, do_values, outputs[0], wanted, isa)


def _forward(
    noise: Tensor,
    jac: Tensor,
    quadratic: Tensor | None,
    offset: Tensor,
    do_mask: Tensor,
    do_values: Tensor,
    isa: str,
) -> tuple[Tensor]:
    noise, jac, offset = without_gaps(noise, 1), without_gaps(jac, 2), without_gaps(offset, 1)
    quadratic = None if quadratic is None else without_gaps(quadratic, 2)
    do_mask, do_values = without_gaps(do_mask, 1), without_gaps(do_values, 1)
    z = empty_like(noise)
    module = _native.cpu()
    kernel = module.ancestral_sample_float32 if noise.dtype == torch.float32 else module.ancestral_sample_float64
    kernel(
        *noise.shape,
        batched_address(jac, 2),
        batched_address(quadratic, 2),
        jac.dim() == 2,
        batched_address(do_mask, 1),
        batched_address(noise, 1),
        offset.data_ptr(),
        batched_address(do_values, 1),
        z.data_ptr(),
        torch.get_num_threads(),
        isa,
    )
    return (z,)


def _backward(
    upstream: Tensor,
    noise: Tensor,
    jac: Tensor,
    quadratic: Tensor | None,
    offset: Tensor,
    do_mask: Tensor,
    do_values: Tensor,
    z: Tensor,
    wanted: Sequence[bool],
    isa: str,
) -> Gradients:
    """Of noise, jac, quadratic, offset, do_mask (None) and do_values."""
    shaped = (noise, jac, quadratic, offset, None, do_values)
    gradients = [empty_like(t) if w and t is not None else None for t, w in zip(shaped, wanted, strict=True)]
    grad_noise, grad_jac, grad_quadratic, grad_offset, _, grad_values = gradients
    upstream, z = without_gaps(upstream, 1), without_gaps(z, 1)
    jac, do_mask = without_gaps(jac, 2), without_gaps(do_mask, 1)
    quadratic = None if quadratic is None else without_gaps(quadratic, 2)
    module = _native.cpu()
    kernel = (
        module.ancestral_sample_backward_float32
        if z.dtype == torch.float32
        else module.ancestral_sample_backward_float64
    )
    kernel(
        *z.shape,
        batched_address(jac, 2),
        batched_address(quadratic, 2),
        jac.dim() == 2,
        batched_address(do_mask, 1),
        batched_address(z, 1),
        batched_address(upstream, 1),
        do_values.dim() == 1,
        *map(address, (grad_noise, grad_jac, grad_quadratic, grad_offset, grad_values)),
        torch.get_num_threads(),
        isa,
    )
    return gradients
