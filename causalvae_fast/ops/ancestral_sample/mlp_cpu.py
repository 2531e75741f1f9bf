"""The CPU backend of `mlp_ancestral_sample`: one call into the compiled kernels (csrc/.../mlp.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
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
    module = _native.cpu()
    z = module.empty(noise, *noise.shape)
    inputs = noise, w_in, b_in, w_out, b_out, edges, do_mask, do_values
    module.mlp_ancestral_sample(activation, *inputs, z, torch.get_num_threads(), isa)
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
    module = _native.cpu()
    gradients = module.empty_like(inputs, wanted)
    differentiable = [gradients[k] for k in (0, 1, 2, 3, 4, 5, 7)]  # all but that of do_mask
    module.mlp_ancestral_sample_backward(
        activation, *inputs[1:], outputs[0], upstreams[0], *differentiable, torch.get_num_threads(), isa
    )
    return gradients
