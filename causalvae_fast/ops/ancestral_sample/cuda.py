"""The CUDA backend of `ancestral_sample`, and of networks: one call into the compiled kernels
(csrc/ops/ancestral_sample) in each direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _cuda
from causalvae_fast.ops._outputs import Gradients, Tensors


def linear_cuda(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d)
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
) -> tuple[Tensor]:
    """z (N, d)."""
    return _forward(noise, jac, None, offset, do_mask, do_values)


def quadratic_cuda(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d)
    quadratic: Tensor,  # like jac
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
) -> tuple[Tensor]:
    """z (N, d)."""
    return _forward(noise, jac, quadratic, offset, do_mask, do_values)


def linear_backward_cuda(
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, jac, offset, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    with_quadratic = (*inputs[:2], None, *inputs[2:])
    found = _backward(upstreams[0], with_quadratic, outputs[0], [*wanted[:2], False, *wanted[2:]])
    return [*found[:2], *found[3:]]


def quadratic_backward_cuda(
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, jac, quadratic, offset, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    return _backward(upstreams[0], tuple(inputs), outputs[0], wanted)


def _forward(
    noise: Tensor,
    jac: Tensor,
    quadratic: Tensor | None,
    offset: Tensor,
    do_mask: Tensor,
    do_values: Tensor,
) -> tuple[Tensor]:
    z = torch.empty(noise.shape, dtype=noise.dtype, device=noise.device)
    inputs = noise, jac, quadratic, offset, do_mask, do_values
    _cuda.module().ancestral_sample(*inputs, z, *_cuda.place(z))
    return (z,)


def _backward(upstream: Tensor, inputs: tuple[Tensor | None, ...], z: Tensor, wanted: Sequence[bool]) -> Gradients:
    """Of noise, jac, quadratic, offset, do_mask (None) and do_values."""
    _, jac, quadratic, _, do_mask, do_values = inputs
    gradients = _cuda.outputs_like(inputs, wanted)
    differentiable = [gradients[k] for k in (0, 1, 2, 3, 5)]  # all but that of do_mask
    _cuda.module().ancestral_sample_backward(
        jac, quadratic, do_mask, do_values, z, upstream, *differentiable, *_cuda.place(z)
    )
    return gradients


def mlp_cuda(
    activation: str,
    noise: Tensor,  # (N, d)
    w_in: Tensor,  # (d, h, d)
    b_in: Tensor,  # (d, h)
    w_out: Tensor,  # (d, h)
    b_out: Tensor,  # (d,)
    edges: Tensor,  # (d, d)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
) -> tuple[Tensor]:
    """z (N, d)."""
    z = torch.empty(noise.shape, dtype=noise.dtype, device=noise.device)
    inputs = noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values
    _cuda.module().mlp_ancestral_sample(activation, *inputs, z, *_cuda.place(z))
    return (z,)


def mlp_backward_cuda(
    activation: str,
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    gradients = _cuda.outputs_like(tuple(inputs), wanted)
    differentiable = [gradients[k] for k in (0, 1, 2, 3, 4, 5, 7)]  # all but that of do_mask
    _cuda.module().mlp_ancestral_sample_backward(
        activation, *inputs[1:], outputs[0], upstreams[0], *differentiable, *_cuda.place(outputs[0])
    )
    return gradients
