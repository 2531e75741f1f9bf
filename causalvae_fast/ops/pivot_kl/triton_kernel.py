"""The Triton backend of `pivot_kl`: fused divergences and reductions, and the products of its gradients
(README.md, "On a GPU").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from causalvae_fast.ops._outputs import Gradients
from causalvae_fast.ops._triton import Config, check_latents, dot_precision, without_gaps
from causalvae_fast.ops.pivot_kl.cpu import PivotKL
from causalvae_fast.ops.pivot_kl.triton_divergences import diagonal_kernel, full_kernel

PROGRAMS = 528  # four for each multiprocessor of an H100: where samples give fewer, several share the pivots
CHUNK = 1 << 24  # elements of residuals (K, B, d), or of matrices (B, d, d), that gradients keep at a time


def diagonal_config(dtype: torch.dtype) -> Config:
    """For a group of samples with diagonal posteriors."""
    return Config({"S": 32 if dtype == torch.float32 else 16, "T": 32, "K": 16}, 4, 2)


def full_config(d: int, dtype: torch.dtype) -> Config:
    """For a sample with a full posterior."""
    if d <= 16:
        return Config({"T": 16, "K": 16}, 1, 1)
    return Config({"T": 32, "K": 32}, 4) if dtype == torch.float32 else Config({"T": 32, "K": 16}, 4, 2)


def pivot_kl_triton(
    jac: Tensor,  # (K, d, d)
    offset: Tensor,  # (K, d)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d)
    *,
    reduce: str,
) -> PivotKL:
    """The divergences, reduced.

    Raises:
        ValueError: if d is larger than 32768.
    """
    (batch, d), pivots = loc.shape, len(jac)
    check_latents(d)
    inputs = _compact(jac, offset, log_sigma, loc, factor)
    with torch.cuda.device_of(loc):
        if reduce == "none":
            value = loc.new_empty(batch, pivots)
            _launch(inputs, value, "none", parts=_parts(batch, pivots, factor))
            return PivotKL(value, None, [None] * 5)
        parts = _parts(batch, pivots, factor)
        partial = loc.new_empty(parts, batch)
        closest = loc.new_empty(parts, batch, dtype=torch.int64) if reduce == "min" else None
        _launch(inputs, partial, reduce, parts=parts, closest=closest)
        if closest is None:
            return PivotKL(math.log(pivots) - torch.logsumexp(-partial, 0), None, [None] * 5)
        value, part = partial.min(0)
        return PivotKL(value, closest.gather(0, part[None])[0], [None] * 5)


def pivot_kl_triton_backward(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    factor: Tensor,
    *,
    reduce: str,
    upstream: Tensor,  # (B, K) without a reduction, otherwise (B,)
    value: Tensor | None = None,  # (B,): for "min" and "logsumexp", what the forward pass gave
    index: Tensor | None = None,  # (B,): for "min", the same
    wanted: Sequence[bool] = (True,) * 5,
) -> Gradients:
    """The gradients asked for, in parts of the batch, so that what has a size of B K d is limited."""
    (batch, d), pivots = loc.shape, len(jac)
    inputs = _compact(jac, offset, log_sigma, loc, factor)
    chunk = max(1, CHUNK // (d * max(pivots, d if factor.dim() == 3 else 1)))
    shared: list[Tensor | None] = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in inputs[:3]]
    own: list[list[Tensor | None]] = []
    with torch.cuda.device_of(loc), torch.no_grad():
        for first in range(0, batch, chunk):
            rows = slice(first, first + chunk)
            part = (*inputs[:3], inputs[3][rows], inputs[4][rows])
            residuals = loc.new_empty(pivots, len(part[3]), d)
            weights = upstream[rows] if reduce == "none" else loc.new_empty(len(part[3]), pivots)
            extra = [t if t is None else t[rows] for t in (upstream, value, index)]
            _launch(
                part, weights, "weights", parts=_parts(len(part[3]), pivots, factor), residuals=residuals,
                weights="given" if reduce == "none" else reduce, extra=extra,
            )  # fmt: skip
            found = _products(part, weights, residuals, wanted)
            for total, gradient in zip(shared, found[:3], strict=True):
                if gradient is not None:
                    assert total is not None
                    total += gradient
            own.append(found[3:])
    per_sample = [_joined([g[k] for g in own], inputs[3 + k]) if w else None for k, w in enumerate(wanted[3:])]
    return [t if w else None for t, w in zip([*shared, *per_sample], wanted, strict=True)]


def _joined(parts: Sequence[Tensor | None], like: Tensor) -> Tensor:
    return torch.cat([p for p in parts if p is not None]) if parts else torch.empty_like(like)


def _products(
    inputs: tuple[Tensor, ...],
    weights: Tensor,  # c (B, K)
    residuals: Tensor,  # r (K, B, d)
    wanted: Sequence[bool],
) -> Gradients:
    """The gradients of sum_bk c_bk KL_bk, as in the table of README.md: products of whole matrices."""
    jac, _, log_sigma, loc, factor = inputs
    A, p, full = jac.tril(-1), torch.exp(-2 * log_sigma), factor.dim() == 3
    (batch, d), pivots = loc.shape, len(jac)
    found: Gradients = [None] * 5
    weighted = residuals * weights.mT.unsqueeze(-1) * p  # c D^-1 r, (K, B, d)
    if wanted[1]:
        found[1] = -weighted.sum(1)
    if wanted[3]:
        side_by_side = weighted.transpose(0, 1).reshape(batch, pivots * d)
        found[3] = weighted.sum(0) - side_by_side @ A.reshape(pivots * d, d)
    if wanted[0] or wanted[2]:
        moments = torch.baddbmm(A, weighted.mT, loc.expand(pivots, batch, d), beta=0)
        squares = (weighted * residuals).sum((0, 1))
        if full:
            L = factor.tril()
            spreads = (weights.mT @ (L @ L.mT).reshape(batch, d * d)).view(pivots, d, d)  # sum_b c L L^T
            products = spreads - A @ spreads
            variances = (products.diagonal(dim1=-2, dim2=-1) - (products * A).sum(-1)).sum(0)
            found[0] = -(p.unsqueeze(-1) * products + moments).tril(-1)
        else:
            spreads = weights.mT @ factor.square()  # sum_b c s^2, (K, d)
            variances = (spreads + (A.square() @ spreads.unsqueeze(-1)).squeeze(-1)).sum(0)
            found[0] = (p.unsqueeze(-1) * A * spreads.unsqueeze(-2) - moments).tril(-1)
        found[2] = weights.sum() - p * variances - squares
    if wanted[4]:
        W = torch.eye(d, dtype=A.dtype, device=A.device) - A
        if full:
            L, P = factor.tril(), W.mT @ (p.unsqueeze(-1) * W)
            gradient = ((weights @ P.reshape(pivots, d * d)).view(batch, d, d) @ L).tril()
            diagonal = gradient.diagonal(dim1=-2, dim2=-1)
            diagonal -= weights.sum(1, keepdim=True) / L.diagonal(dim1=-2, dim2=-1)
        else:
            norms = (W.square() * p.unsqueeze(-1)).sum(-2)  # (K, d)
            gradient = factor * (weights @ norms) - weights.sum(1, keepdim=True) / factor
        found[4] = gradient
    return [g if w else None for g, w in zip(found, wanted, strict=True)]


def _launch(
    inputs: tuple[Tensor, ...],
    out: Tensor,
    reduce: str,
    *,
    parts: int,
    closest: Tensor | None = None,
    residuals: Tensor | None = None,
    weights: str = "none",
    extra: Sequence[Tensor | None] = (None, None, None),
) -> None:
    jac, _, _, loc, factor = inputs
    (batch, d), pivots = loc.shape, len(jac)
    if batch == 0:
        return
    strides = [t.stride(0) for t in (jac, inputs[1], loc, factor)]
    upstream, value, index = extra
    strides.append(0 if upstream is None else upstream.stride(0))
    arguments = (*inputs, upstream, value, index, *strides, out, closest, residuals, batch, pivots, d)
    per_part, modes = triton.cdiv(pivots, parts), {"reduce": reduce, "weights": weights}
    if factor.dim() == 3:
        config = full_config(d, loc.dtype)
        full_kernel[(batch, parts)](*arguments, per_part, **modes, dot=dot_precision(loc.dtype), **config.options)
    else:
        config = diagonal_config(loc.dtype)
        groups = triton.cdiv(batch, config.tiles["S"])
        diagonal_kernel[(groups, parts)](*arguments, per_part, **modes, **config.options)


def _parts(batch: int, pivots: int, factor: Tensor) -> int:
    """Into how many parts pivots are divided."""
    groups = batch if factor.dim() == 3 else triton.cdiv(batch, 32)
    per_part = triton.cdiv(pivots, min(pivots, max(1, PROGRAMS // max(groups, 1))))
    return int(triton.cdiv(pivots, per_part))


def _compact(*inputs: Tensor) -> tuple[Tensor, ...]:
    jac, offset, log_sigma, loc, factor = inputs
    vectors = [without_gaps(t, 1) for t in (offset, log_sigma, loc)]
    return without_gaps(jac, 2), *vectors, without_gaps(factor, factor.dim() - 1)
