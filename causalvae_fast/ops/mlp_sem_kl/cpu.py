"""The CPU backend of `mlp_sem_kl`: one call into the compiled kernels (csrc/ops/mlp_sem_kl)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._outputs import Gradients


def mlp_sem_kl_cpu(
    activation: str,
    pivot: Tensor,  # (B, d)
    w_in: Tensor,  # (d, h, d)
    b_in: Tensor,  # (d, h)
    w_out: Tensor,  # (d, h)
    b_out: Tensor,  # (d,)
    edges: Tensor,  # (d, d)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d), packed (B, P)
    *,
    packed_scale_tril: bool = False,  # P = d (d + 1) / 2 values for each matrix
    upstream: Tensor | None = None,  # (B,): the gradient of the loss with respect to each KL
    weight: float = 0.0,  # the same for all, without `upstream`
    wanted: Sequence[bool] = (False,) * 9,  # for each input: compute its gradient
    wants_total: bool = False,
    isa: str = "",  # the best one by default
) -> tuple[Tensor, Gradients]:
    """The KL (B,), or with `wants_total` its sum weighted by the upstream gradients, and the gradients asked for,
    shaped as their inputs; in one pass.
    """
    module = _native.cpu()
    inputs = pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor
    value = module.empty(loc) if wants_total else module.empty(loc, loc.shape[0])
    gradients = module.empty_like(inputs, wanted)
    module.mlp_sem_kl(
        activation,
        *inputs,
        packed_scale_tril,
        upstream,
        weight,
        None if wants_total else value,
        value if wants_total else None,
        *gradients,
        torch.get_num_threads(),
        isa,
    )
    return value, gradients
