"""The CPU backend of `sem_kl`: one call into the compiled kernels (csrc/ops/sem_kl)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._outputs import Gradients


def sem_kl_cpu(
    jac: Tensor,  # (B, d, d) or (d, d); packed, (B, P) or (P,)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d), packed (B, P)
    *,
    packed_jac: bool = False,  # P = d (d + 1) / 2 values for each matrix
    packed_scale_tril: bool = False,
    upstream: Tensor | None = None,  # (B,): the gradient of the loss with respect to each KL
    weight: float = 0.0,  # the same for all, without `upstream`
    wanted: Sequence[bool] = (False,) * 5,  # for each input: compute its gradient
    wants_total: bool = False,
    isa: str = "",  # the best one by default
) -> tuple[Tensor, Gradients]:
    """The KL (B,), or with `wants_total` its sum weighted by the upstream gradients, and the gradients asked for,
    shaped as their inputs; in one pass.
    """
    module = _native.cpu()
    inputs = jac, offset, log_sigma, loc, factor
    value = module.empty(loc) if wants_total else module.empty(loc, loc.shape[0])
    gradients = module.empty_like(inputs, wanted)
    module.sem_kl(
        *inputs,
        packed_jac,
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
