"""The CUDA backend of `propagate`: one call into the compiled kernels (csrc/ops/propagate) in each direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _cuda
from causalvae_fast.ops._outputs import Gradients, Tensors


def propagate_cuda(
    jac: Tensor,  # (B, d, d) or (d, d)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
) -> tuple[Tensor, Tensor]:
    """loc (B, d), or (d,) if neither jac nor offset has a batch, and scale_tril, shaped as jac."""
    shape = jac.shape[:-1] if jac.dim() == 3 else offset.shape
    loc, scale_tril = (torch.empty(s, dtype=jac.dtype, device=jac.device) for s in (shape, jac.shape))
    _cuda.module().propagate(jac, offset, log_sigma, loc, scale_tril, *_cuda.place(jac))
    return loc, scale_tril


def propagate_backward_cuda(
    upstreams: Tensors,  # of loc and scale_tril, shaped as they are; the latter is read on and below the diagonal
    inputs: Tensors,  # jac, offset, log_sigma
    outputs: Tensors,  # loc, scale_tril
    wanted: Sequence[bool],  # for each input: compute its gradient
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    gradients = _cuda.outputs_like(tuple(inputs), wanted)
    _cuda.module().propagate_backward(*inputs, *outputs, *upstreams, *gradients, *_cuda.place(inputs[0]))
    return gradients
