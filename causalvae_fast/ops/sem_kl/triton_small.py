"""Triton kernel of `sem_kl` for small d: several samples at a time, in registers.

Names: with M = W L and r = W m - b, N = D^-1 M and u = D^-1 r. A gradient that is not wanted is None. Offsets
of samples are 64-bit, those within a sample 32-bit.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import (
    precision,
    row_start,
    upstream_of,
    vector,
)


@triton.jit
def products(a, b, dot: tl.constexpr, dtype: tl.constexpr, D: tl.constexpr):
    """S products (S, D, D) of matrices. tl.dot takes no fewer than 16 rows, most of them zeros here."""
    if D < 16:
        product = tl.sum(a[:, :, :, None] * b[:, None, :, :], 2)
    else:
        product = tl.dot(a, b, input_precision=dot, out_dtype=dtype)
    return product


@triton.jit
def small_kernel(
    jac, offset, log_sigma, loc, factor, upstream,
    jac_stride, offset_stride, loc_stride, factor_stride, upstream_stride,
    value,  # (B,)
    grad_jac,  # as jac; where the batch shares it, (programs, d, d) or (programs, P): sums of a program's samples
    grad_offset, grad_log_sigma, grad_loc,  # (B, d)
    grad_factor,  # as factor
    batch, d, steps,
    full: tl.constexpr, packed_jac: tl.constexpr, packed_tril: tl.constexpr, shared_jac: tl.constexpr,
    weight: tl.constexpr, dot: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """S samples at a time, each whole in registers, d <= D."""
    i = tl.arange(0, D)
    row, column = i[None, :, None], i[None, None, :]
    jac_at, factor_at = row_start(row, d, packed_jac) + column, row_start(row, d, packed_tril) + column
    jac_size, factor_size = row_start(d, d, packed_jac), row_start(d, d, packed_tril)
    below, below_or_on, diagonal = (column < row) & (row < d), (column <= row) & (row < d), column == row
    stored_jac, stored_factor = (row < d) & (column < d), (row < d) & (column < d)
    if packed_jac:
        stored_jac = below_or_on
    if packed_tril:
        stored_factor = below_or_on
    p = precision(log_sigma, i, d)
    p_row = p[None, :, None]
    log_sigmas = tl.sum(vector(log_sigma, i, d))
    dtype: tl.constexpr = loc.dtype.element_ty
    total = tl.zeros((D, D), dtype=dtype)
    for step in range(steps):
        b = ((tl.program_id(0).to(tl.int64) * steps + step) * S) + tl.arange(0, S)
        there = b < batch
        there3 = there[:, None, None]
        there2 = there[:, None] & (i < d)[None, :]
        at2 = b[:, None] * d + i[None, :]
        A = tl.load(jac + b[:, None, None] * jac_stride + jac_at, mask=there3 & below, other=0.0)
        m = tl.load(loc + b[:, None] * loc_stride + i[None, :], mask=there2, other=0.0)
        r = m - tl.load(offset + b[:, None] * offset_stride + i[None, :], mask=there2, other=0.0)
        r -= tl.sum(A * m[:, None, :], 2)
        u = r * p[None, :]
        if full:
            at3 = b[:, None, None] * factor_stride + factor_at
            L = tl.load(factor + at3, mask=there3 & below_or_on, other=0.0)
            M = L - products(A, L, dot, dtype, D)
            N = M * p_row
            spread = tl.sum(M * N, 2)
            at = b[:, None] * factor_stride + (row_start(i, d, packed_tril) + i)[None, :]
            scale = tl.load(factor + at, mask=there2, other=1.0)
        else:
            scale = tl.load(factor + b[:, None] * factor_stride + i[None, :], mask=there2, other=1.0)
            variance = tl.where(there2, scale * scale, 0.0)
            spread = (variance + tl.sum(A * A * variance[:, None, :], 2)) * p[None, :]
        spread += r * u
        kl = 0.5 * (tl.sum(spread, 1) - d) + log_sigmas - tl.sum(tl.log(scale), 1)
        tl.store(value + b, kl, mask=there)
        if weight != "none":
            if weight == "given":
                g = tl.load(upstream + b * upstream_stride, mask=there, other=0.0)
            else:
                g = tl.where(there, upstream_of(upstream, upstream_stride, b, batch, dtype, weight), 0.0)
            g2, g3 = g[:, None], g[:, None, None]
            if grad_log_sigma is not None:
                tl.store(grad_log_sigma + at2, g2 * (1 - spread), mask=there2)
            if grad_offset is not None:
                tl.store(grad_offset + at2, -g2 * u, mask=there2)
            if grad_loc is not None:
                tl.store(grad_loc + at2, g2 * (u - tl.sum(A * u[:, :, None], 1)), mask=there2)
            if grad_jac is not None:
                if full:
                    tile = products(N, tl.trans(L, (0, 2, 1)), dot, dtype, D)
                    tile = -g3 * (tile + u[:, :, None] * m[:, None, :])
                else:
                    tile = g3 * (A * p_row * variance[:, None, :] - u[:, :, None] * m[:, None, :])
                tile = tl.where(below, tile, 0.0)
                if shared_jac:
                    total += tl.sum(tile, 0)
                else:
                    at3 = b[:, None, None] * jac_size + jac_at
                    tl.store(grad_jac + at3, tile, mask=there3 & stored_jac)
            if grad_factor is not None:
                if full:
                    tile = N - products(tl.trans(A, (0, 2, 1)), N, dot, dtype, D)
                    tile -= tl.where(diagonal, (1 / scale)[:, :, None], 0.0)
                    tile = tl.where(below_or_on, g3 * tile, 0.0)
                    at3 = b[:, None, None] * factor_size + factor_at
                    tl.store(grad_factor + at3, tile, mask=there3 & stored_factor)
                else:
                    norms = p[None, :] + tl.sum(A * A * p_row, 1)
                    tl.store(grad_factor + at2, g2 * (scale * norms - 1 / scale), mask=there2)
    if weight != "none" and shared_jac and grad_jac is not None:
        at = tl.program_id(0).to(tl.int64) * jac_size + row_start(i, d, packed_jac)[:, None] + i[None, :]
        mask = (i[:, None] < d) & (i[None, :] < d)
        if packed_jac:
            mask = mask & (i[None, :] <= i[:, None])
        tl.store(grad_jac + at, total, mask=mask)
