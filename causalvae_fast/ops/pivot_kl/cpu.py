"""The CPU backend of `pivot_kl`: one call into the compiled kernels (csrc/ops/pivot_kl)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._outputs import Gradients

REDUCTIONS = ("none", "min", "logsumexp")  # the kernels know them by their places


class PivotKL(NamedTuple):
    """The result of a call."""

    value: Tensor  # (B, K) without a reduction, otherwise (B,)
    closest: Tensor | None  # (B,), int64, for "min": which pivot
    gradients: Gradients  # shaped as the inputs


def pivot_kl_cpu(
    jac: Tensor,  # (K, d, d)
    offset: Tensor,  # (K, d)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d)
    *,
    reduce: str,
    upstream: Tensor | None = None,  # (B, K) without a reduction, otherwise (B,)
    value: Tensor | None = None,  # (B,): for the gradients of "logsumexp", what an earlier call gave
    index: Tensor | None = None,  # (B,): for the gradients of "min", the same
    wanted: Sequence[bool] = (False,) * 5,  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> PivotKL:
    """The divergences, reduced; or, where there is an upstream gradient, the gradients asked for."""
    module = _native.cpu()
    if upstream is None:
        value = module.empty(loc, loc.shape[0], *(jac.shape[:1] if reduce == "none" else ()))
        index = loc.new_empty(loc.shape[0], dtype=torch.int64) if reduce == "min" else None
    else:  # these are read, where there is a reduction
        value = module.empty(loc, 0) if value is None else value.contiguous()
        index = None if index is None else index.contiguous()
    inputs = jac, offset, log_sigma, loc, factor
    gradients = module.empty_like(inputs, wanted)
    reduction = REDUCTIONS.index(reduce)
    module.pivot_kl(*inputs, reduction, upstream, value, index, *gradients, torch.get_num_threads(), isa)
    return PivotKL(value, index, gradients)
