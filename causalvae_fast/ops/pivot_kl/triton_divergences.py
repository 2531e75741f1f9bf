"""Triton kernels of `pivot_kl`: divergences from each pivot, reduced as they come, or their weights.

A program takes the pivots of one part. `reduce` is what is done with each divergence: "none" writes it; "min" and
"logsumexp" keep a running result, written for each part; "weights" writes residuals, and the gradient of the loss
with respect to each divergence (README.md, "On a GPU").
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import precision, product, residual, row_start, tile_above, vector


@triton.jit
def closer(kl, k, best, index):
    """The smaller of two divergences and its pivot: the first of equal ones, NaN before all others."""
    wins = (kl < best) | ((kl != kl) & (best == best))
    return tl.where(wins, kl, best), tl.where(wins, k, index)


@triton.jit
def added(kl, least, total):
    """The smallest divergence, and the sum of exp(least - KL), with one more: nothing if it is infinite."""
    smaller = tl.where(kl < least, kl, least)
    before = tl.where(least == smaller, total, total * tl.exp(smaller - least))
    return smaller, before + tl.where(kl == smaller, 1.0, tl.exp(smaller - kl))


@triton.jit
def weight_of(kl, k, g, v, index, pivots, weights: tl.constexpr):
    """dloss / dKL_bk from the gradient g of a reduced value v; `index` is the closest pivot."""
    if weights == "min":
        return tl.where(index == k, g, 0.0)
    return g * tl.exp(v - kl) / pivots


@triton.jit
def diagonal_kernel(
    jac,  # (K, d, d)
    offset,  # (K, d)
    log_sigma,  # (d,)
    loc, scale,  # (B, d)
    upstream, value, index,  # (B,), for "weights"
    jac_stride, offset_stride, loc_stride, scale_stride, upstream_stride,
    out,  # (B, K) for "none" and "weights"; (parts, B) with a reduction
    closest,  # (parts, B), for "min"
    residuals,  # (K, B, d), for "weights"
    batch, pivots, d, per_part,
    reduce: tl.constexpr, weights: tl.constexpr, S: tl.constexpr, T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """S samples with diagonal posteriors against the pivots of one part."""
    b = tl.program_id(0).to(tl.int64) * S + tl.arange(0, S)
    part = tl.program_id(1)
    there = b < batch
    dtype: tl.constexpr = loc.dtype.element_ty
    constant = tl.zeros((S,), dtype=dtype)
    for i0 in range(0, d, T):
        i = i0 + tl.arange(0, T)
        mask = there[:, None] & (i < d)[None, :]
        s = tl.load(scale + b[:, None] * scale_stride + i[None, :], mask=mask, other=1.0)
        constant += tl.sum(tl.where(mask, vector(log_sigma, i, d)[None, :] - tl.log(s) - 0.5, 0.0), 1)
    best = tl.full((S,), float("inf"), dtype)
    total = tl.zeros((S,), dtype=dtype)
    first = part * per_part
    which = tl.zeros((S,), dtype=tl.int64) + first
    for step in range(0, tl.minimum(pivots - first, per_part)):
        k = first.to(tl.int64) + step
        A_k = jac + k * jac_stride
        squares = tl.zeros((S,), dtype=dtype)
        for i0 in range(0, d, T):
            i = i0 + tl.arange(0, T)
            p = precision(log_sigma, i, d)
            mask = there[:, None] & (i < d)[None, :]
            moved = tl.zeros((S, T), dtype=dtype)
            spread = tl.zeros((S, T), dtype=dtype)
            for j0 in range(0, tl.minimum(i0 + T, d), K):
                j = j0 + tl.arange(0, K)
                inside = there[:, None] & (j < d)[None, :]
                A = tile_above(A_k, j, i, d, False, 0)
                m = tl.load(loc + b[:, None] * loc_stride + j[None, :], mask=inside, other=0.0)
                # In full precision: where residuals are small and means are not, digits cancel.
                moved = tl.dot(m, A, moved, input_precision="ieee", out_dtype=dtype)
                if weights == "none" or weights == "logsumexp":
                    s = tl.load(scale + b[:, None] * scale_stride + j[None, :], mask=inside, other=0.0)
                    spread = tl.dot(s * s, A * A, spread, input_precision="ieee", out_dtype=dtype)
            r = tl.load(loc + b[:, None] * loc_stride + i[None, :], mask=mask, other=0.0) - moved
            r -= vector(offset + k * offset_stride, i, d)[None, :]
            r = tl.where(mask, r, 0.0)
            s = tl.load(scale + b[:, None] * scale_stride + i[None, :], mask=mask, other=0.0)
            squares += tl.sum((spread + s * s + r * r) * p[None, :], 1)
            if reduce == "weights":
                at = (k * batch + b)[:, None] * d + i[None, :]
                tl.store(residuals + at, r, mask=mask)
        kl = 0.5 * squares + constant
        if reduce == "none":
            tl.store(out + b * pivots + k, kl, mask=there)
        elif reduce == "min":
            best, which = closer(kl, k, best, which)
        elif reduce == "logsumexp":
            best, total = added(kl, best, total)
        elif weights != "given":
            g = tl.load(upstream + b * upstream_stride, mask=there, other=0.0)
            v = tl.load(value + b, mask=there, other=0.0)
            nearest = tl.load(index + b, mask=there, other=0) if weights == "min" else k
            tl.store(out + b * pivots + k, weight_of(kl, k, g, v, nearest, pivots, weights), mask=there)
    at = part.to(tl.int64) * batch + b
    if reduce == "min":
        tl.store(out + at, best, mask=there)
        tl.store(closest + at, which, mask=there)
    elif reduce == "logsumexp":
        tl.store(out + at, best - tl.log(total), mask=there)


@triton.jit
def full_kernel(
    jac,  # (K, d, d)
    offset,  # (K, d)
    log_sigma,  # (d,)
    loc,  # (B, d)
    scale_tril,  # (B, d, d)
    upstream, value, index,  # (B,), for "weights"
    jac_stride, offset_stride, loc_stride, factor_stride, upstream_stride,
    out,  # (B, K) for "none" and "weights"; (parts, B) with a reduction
    closest,  # (parts, B), for "min"
    residuals,  # (K, B, d), for "weights"
    batch, pivots, d, per_part,
    reduce: tl.constexpr, weights: tl.constexpr, dot: tl.constexpr, T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One sample with a full posterior against the pivots of one part, tile by tile of W_k L_b."""
    b = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    loc += b * loc_stride
    scale_tril += b * factor_stride
    dtype: tl.constexpr = loc.dtype.element_ty
    constant = tl.full((), 0.0, dtype)
    for i0 in range(0, d, T):
        i = i0 + tl.arange(0, T)
        s = tl.load(scale_tril + row_start(i, d, False) + i, mask=i < d, other=1.0)
        constant += tl.sum(tl.where(i < d, vector(log_sigma, i, d) - tl.log(s) - 0.5, 0.0))
    best = tl.full((), float("inf"), dtype)
    total = tl.full((), 0.0, dtype)
    first = part * per_part
    which = tl.full((), 0, tl.int64) + first
    for step in range(0, tl.minimum(pivots - first, per_part)):
        k = first.to(tl.int64) + step
        A_k = jac + k * jac_stride
        squares = tl.full((), 0.0, dtype)
        for i0 in range(0, d, T):
            i = i0 + tl.arange(0, T)
            p = precision(log_sigma, i, d)
            r = residual(A_k, offset + k * offset_stride, loc, i0, d, False, T, K)
            if reduce == "weights":
                tl.store(residuals + (k * batch + b) * d + i, r, mask=i < d)
            spread = r * r
            if weights == "none" or weights == "logsumexp":
                for j0 in range(0, i0 + T, T):
                    M = product(A_k, scale_tril, i0, j0, d, False, False, T, T, K, dot)
                    spread += tl.sum(M * M, 1)
            squares += tl.sum(spread * p)
        kl = 0.5 * squares + constant
        if reduce == "none":
            tl.store(out + b * pivots + k, kl)
        elif reduce == "min":
            best, which = closer(kl, k, best, which)
        elif reduce == "logsumexp":
            best, total = added(kl, best, total)
        elif weights != "given":
            nearest = tl.load(index + b) if weights == "min" else k
            g = tl.load(upstream + b * upstream_stride)
            tl.store(out + b * pivots + k, weight_of(kl, k, g, tl.load(value + b), nearest, pivots, weights))
    at = part.to(tl.int64) * batch + b
    if reduce == "min":
        tl.store(out + at, best)
        tl.store(closest + at, which)
    elif reduce == "logsumexp":
        tl.store(out + at, best - tl.log(total))
