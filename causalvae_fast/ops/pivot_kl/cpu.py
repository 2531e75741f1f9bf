"""The CPU backend of `pivot_kl`: one call into the compiled kernels (csrc/ops/pivot_kl)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty_like, without_gaps

REDUCTIONS = ("none", "min", "logsumexp")  # the kernels know them by their places


class PivotKL(NamedTuple):
    """The result of a call."""

    value: Tensor  # (B, K) without a reduction, otherwise (B,)
    closest: Tensor | None  # (B,), int64, for "min": which pivot
    gradients: list[Tensor | None]  # shaped as the inputs


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
    (batch, d), pivots = loc.shape, len(jac)
    full = factor.dim() == 3
    jac = without_gaps(jac, 2)
    offset = without_gaps(offset, 1)
    log_sigma = without_gaps(log_sigma, 1)
    loc = without_gaps(loc, 1)
    factor = without_gaps(factor, 2 if full else 1)
    backward = upstream is not None
    if upstream is not None:
        upstream = without_gaps(upstream, 1 if reduce == "none" else 0)

    inputs = (jac, offset, log_sigma, loc, factor)
    if not backward:
        value = torch.empty((batch, pivots) if reduce == "none" else (batch,), dtype=loc.dtype, device="cpu")
        index = torch.empty(batch, dtype=torch.int64, device="cpu") if reduce == "min" else None
    elif reduce == "none":
        value = torch.empty(0, dtype=loc.dtype, device="cpu")
    assert value is not None
    value = value.contiguous()
    index = None if index is None else index.contiguous()
    grads = [empty_like(t) if w else None for t, w in zip(inputs, wanted, strict=True)]
    kernel = _native.cpu().pivot_kl_float32 if loc.dtype == torch.float32 else _native.cpu().pivot_kl_float64
    kernel(
        batch,
        pivots,
        d,
        batched_address(jac, 2),
        batched_address(offset, 1),
        log_sigma.data_ptr(),
        batched_address(loc, 1),
        batched_address(None if full else factor, 1),
        batched_address(factor if full else None, 2),
        REDUCTIONS.index(reduce),
        batched_address(upstream, 1 if reduce == "none" else 0),
        value.data_ptr(),
        address(index),
        *map(address, grads),
        torch.get_num_threads(),
        isa,
    )
    return PivotKL(value, index, grads)
