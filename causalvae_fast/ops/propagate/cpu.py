"""The CPU backend of `propagate`: one call into the compiled kernels (csrc/ops/propagate) in each direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty, empty_like, without_gaps
from causalvae_fast.ops._outputs import Gradients, Tensors


def propagate_cpu(
    jac: Tensor,  # (B, d, d) or (d, d)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    *,
    isa: str = "",  # the best one by default
) -> tuple[Tensor, Tensor]:
    """loc (B, d), or (d,) if neither jac nor offset has a batch, and scale_tril, shaped as jac."""
    jac, offset, log_sigma = without_gaps(jac, 2), without_gaps(offset, 1), without_gaps(log_sigma, 1)
    loc = empty(jac.shape[:-1] if jac.dim() == 3 else offset.shape, jac.dtype)
    scale_tril = empty_like(jac)
    module = _native.cpu()
    kernel = module.propagate_float32 if jac.dtype == torch.float32 else module.propagate_float64
    kernel(
        loc.shape[0] if loc.dim() == 2 else 1,
        log_sigma.shape[0],
        batched_address(jac, 2),
        jac.dim() == 2,
        batched_address(offset, 1),
        log_sigma.data_ptr(),
        loc.data_ptr(),
        scale_tril.data_ptr(),
        torch.get_num_threads(),
        isa,
    )
    return loc, scale_tril


def propagate_backward_cpu(
    upstreams: Tensors,  # of loc and scale_tril, shaped as they are; the latter is read on and below the diagonal
    inputs: Tensors,  # jac, offset, log_sigma
    outputs: Tensors,  # loc, scale_tril
    wanted: Sequence[bool],  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    jac, offset, log_sigma = without_gaps(inputs[0], 2), inputs[1], without_gaps(inputs[2], 1)
    loc, scale_tril = without_gaps(outputs[0], 1), without_gaps(outputs[1], 2)
    upstream_loc, upstream_scale_tril = without_gaps(upstreams[0], 1), without_gaps(upstreams[1], 2)
    gradients = [empty_like(t) if w else None for t, w in zip(inputs, wanted, strict=True)]
    module = _native.cpu()
    kernel = module.propagate_backward_float32 if jac.dtype == torch.float32 else module.propagate_backward_float64
    kernel(
        loc.shape[0] if loc.dim() == 2 else 1,
        log_sigma.shape[0],
        batched_address(jac, 2),
        jac.dim() == 2,
        offset.dim() == 1,
        log_sigma.data_ptr(),
        batched_address(loc, 1),
        batched_address(scale_tril, 2),
        batched_address(upstream_loc, 1),
        batched_address(upstream_scale_tril, 2),
        *map(address, gradients),
        torch.get_num_threads(),
        isa,
    )
    return gradients
