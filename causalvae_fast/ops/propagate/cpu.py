"""The CPU backend of `propagate`: one call into the compiled kernels (csrc/ops/propagate) in each direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._outputs import Gradients, Tensors


def propagate_cpu(
    jac: Tensor,  # (B, d, d) or (d, d)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    *,
    isa: str = "",  # the best one by default
) -> tuple[Tensor, Tensor]:
    """loc (B, d), or (d,) if neither jac nor offset has a batch, and scale_tril, shaped as jac."""
    module = _native.cpu()
    loc = module.empty(jac, *(jac.shape[:-1] if jac.dim() == 3 else offset.shape))
    scale_tril = module.empty(jac, *jac.shape)
    module.propagate(jac, offset, log_sigma, loc, scale_tril, torch.get_num_threads(), isa)
    return loc, scale_tril


def propagate_backward_cpu(
    upstreams: Tensors,  # of loc and scale_tril, shaped as they are; the latter is read on and below the diagonal
    inputs: Tensors,  # jac, offset, log_sigma
    outputs: Tensors,  # loc, scale_tril
    wanted: Sequence[bool],  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> Gradients:
    """The gradients asked for, shaped as their inputs; summed over the batch for what it shares."""
    module = _native.cpu()
    gradients = module.empty_like(inputs, wanted)
    module.propagate_backward(*inputs, *outputs, *upstreams, *gradients, torch.get_num_threads(), isa)
    return gradients
