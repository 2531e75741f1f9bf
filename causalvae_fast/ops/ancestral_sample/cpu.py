"""The CPU backend of `ancestral_sample`: one call into the compiled kernels (csrc/ops/ancestral_sample)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
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
    module = _native.cpu()
    z = module.empty(noise, *noise.shape)
    inputs = noise, jac, quadratic, offset, do_mask, do_values
    module.ancestral_sample(*inputs, z, torch.get_num_threads(), isa)
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
    module = _native.cpu()
    gradients = module.empty_like((noise, jac, quadratic, offset, None, do_values), wanted)
    differentiable = [gradients[k] for k in (0, 1, 2, 3, 5)]  # all but that of do_mask
    module.ancestral_sample_backward(
        jac, quadratic, do_mask, do_values, z, upstream, *differentiable, torch.get_num_threads(), isa
    )
    return gradients
