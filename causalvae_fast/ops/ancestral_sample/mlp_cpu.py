"""The CPU backend of `mlp_ancestral_sample`: one call into the compiled kernels (csrc/.../mlp.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty_like, without_gaps
from causalvae_fast.ops._outputs import Gradients, Tensors


def mlp_cpu(
    activation: str,
    noise: Tensor,  # (N, d)
    w_in: Tensor,  # (d, h, d)
    b_in: Tensor,  # (d, h)
    w_out: Tensor,  # (d, h)
    b_out: Tensor,  # (d,)
    edges: Tensor,  # (d, d)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
    *,
    isa: str = "",  # the best one by default
) -> tuple[Tensor]:
    """z (N, d)."""
    noise, do_mask, do_values = (without_gaps(t, 1) for t in (noise, do_mask, do_values))
    parameters = [without_gaps(t, t.dim()) for t in (w_in, b_in, w_out, b_out, edges)]
    z = empty_like(noise)
    module = _native.cpu()
    float32 = noise.dtype == torch.float32
    kernel = module.mlp_ancestral_sample_float32 if float32 else module.mlp_ancestral_sample_float64
    kernel(
        *noise.shape,
        w_in.shape[1],
        activation,
        [t.data_ptr() for t in parameters],
        batched_address(do_mask, 1),
        batched_address(noise, 1),
        batched_address(do_values, 1),
        z.data_ptr(),
        torch.get_num_threads(),
        isa,
    )
    return (z,)


def mlp_backward_cpu(
    activation: str,
    upstreams: Tensors,  # of z
    inputs: Tensors,  # noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values
    outputs: Tensors,  # z
    wanted: Sequence[bool],  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    gradients = [empty_like(t) if want else None for t, want in zip(inputs, wanted, strict=True)]
    _, w_in, b_in, w_out, b_out, edges, do_mask, do_values = inputs
    z, upstream, do_mask = (without_gaps(t, 1) for t in (outputs[0], upstreams[0], do_mask))
    parameters = [without_gaps(t, t.dim()) for t in (w_in, b_in, w_out, b_out, edges)]
    module = _native.cpu()
    kernel = (
        module.mlp_ancestral_sample_backward_float32
        if z.dtype == torch.float32
        else module.mlp_ancestral_sample_backward_float64
    )
    kernel(
        *z.shape,
        w_in.shape[1],
        activation,
        [t.data_ptr() for t in parameters],
        batched_address(do_mask, 1),
        batched_address(z, 1),
        batched_address(upstream, 1),
        do_values.dim() == 1,
        [address(gradients[k]) for k in (0, 1, 2, 3, 4, 5, 7)],  # all but that of do_mask
        torch.get_num_threads(),
        isa,
    )
    return gradients
