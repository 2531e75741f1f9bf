"""Triton kernel of `sem_kl` for the gradient of a jac that the batch shares.

Names: with M = W L and r = W m - b, N = D^-1 M and u = D^-1 r. A gradient that is not wanted is None. Offsets
of samples are 64-bit, those within a sample 32-bit.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import (
    precision,
    product_with_transpose,
    row_start,
    store_tile,
    tile_below,
    upstream_of,
)


@triton.jit
def shared_jac_kernel(
    jac, log_sigma, loc, factor, upstream,
    loc_stride, factor_stride, upstream_stride,
    N,  # (chunk, d, d) or (chunk, P), laid out as scale_tril; for a full posterior
    u,  # (B, d)
    grad_jac,  # (splits, d, d) or (splits, P)
    batch, d, first, last, per_split,
    full: tl.constexpr, packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr,
    dot: tl.constexpr, T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tile of the gradient of a jac that the batch shares, summed over `per_split` samples in their order."""
    split = tl.program_id(0).to(tl.int64)
    tile_i, tile_j = tl.program_id(1), tl.program_id(2)
    i, j = tile_i * T + tl.arange(0, T), tile_j * T + tl.arange(0, T)
    grad_jac += split * row_start(d, d, packed_jac)
    dtype: tl.constexpr = loc.dtype.element_ty
    total = tl.zeros((T, T), dtype=dtype)
    if tile_i >= tile_j:
        start = first + split * per_split
        end = tl.minimum(start + per_split, last)
        variances = tl.zeros((T,), dtype=dtype)
        for b0 in range(start, end, K):
            b = b0 + tl.arange(0, K).to(tl.int64)
            if weight == "given":
                g = tl.load(upstream + b * upstream_stride, mask=b < end, other=0.0)
            else:
                g = tl.where(b < end, upstream_of(upstream, upstream_stride, b, batch, dtype, weight), 0.0)
            mask = (b < end)[:, None]
            u_i = tl.load(u + b[:, None] * d + i[None, :], mask=mask & (i < d)[None, :], other=0.0)
            m_j = tl.load(loc + b[:, None] * loc_stride + j[None, :], mask=mask & (j < d)[None, :], other=0.0)
            total = tl.dot(tl.trans(u_i * g[:, None]), m_j, total, input_precision=dot, out_dtype=dtype)
            if not full:
                s = tl.load(
                    factor + b[:, None] * factor_stride + j[None, :], mask=mask & (j < d)[None, :], other=0.0
                )
                variances += tl.sum(s * s * g[:, None], 0)
        if full:
            for b in range(start, end):
                g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
                total += g * product_with_transpose(
                    N + (b - first) * row_start(d, d, packed_tril), factor + b * factor_stride, tile_i * T,
                    tile_j * T, d, packed_tril, packed_tril, T, T, K, dot,
                )  # fmt: skip
        else:
            p = precision(log_sigma, i, d)
            total -= tile_below(jac, i, j, d, packed_jac, 0) * p[:, None] * variances[None, :]
    store_tile(grad_jac, i, j, tl.where(j[None, :] < i[:, None], -total, 0.0), d, packed_jac)
