"""Triton kernels of `sem_kl` for diagonal posteriors, in blocks of rows and of columns.

Names: with M = W L and r = W m - b, N = D^-1 M and u = D^-1 r. A gradient that is not wanted is None. Offsets
of samples are 64-bit, those within a sample 32-bit.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import (
    precision,
    row_start,
    store_tile,
    tile_below,
    upstream_of,
    vector,
)


@triton.jit
def rows_kernel(
    jac, offset, log_sigma, loc, scale, upstream,
    jac_stride, offset_stride, loc_stride, scale_stride, upstream_stride,
    value,  # (B, blocks): what each block of rows adds
    u, grad_offset, grad_log_sigma,  # (B, d)
    batch, d,
    packed_jac: tl.constexpr, weight: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """R rows of one sample, diagonal posterior: residuals and |M_i|^2."""
    b = tl.program_id(0).to(tl.int64)
    i0 = tl.program_id(1) * R
    i = i0 + tl.arange(0, R)
    jac += b * jac_stride
    loc += b * loc_stride
    scale += b * scale_stride
    p = precision(log_sigma, i, d)
    s = tl.load(scale + i, mask=i < d, other=1.0)
    r = vector(loc, i, d) - vector(offset + b * offset_stride, i, d)
    spread = tl.where(i < d, s * s, 0.0)
    for k0 in range(0, tl.minimum(i0 + R, d), C):
        k = k0 + tl.arange(0, C)
        A = tile_below(jac, i, k, d, packed_jac, 0)
        s_k = vector(scale, k, d)
        r -= tl.sum(A * vector(loc, k, d)[None, :], 1)
        spread += tl.sum(A * A * (s_k * s_k)[None, :], 1)
    spread = (spread + r * r) * p
    kl = 0.5 * tl.sum(spread) + tl.sum(tl.where(i < d, vector(log_sigma, i, d) - tl.log(s) - 0.5, 0.0))
    tl.store(value + b * tl.num_programs(1) + tl.program_id(1), kl)
    if weight != "none":
        g = upstream_of(upstream, upstream_stride, b, batch, loc.dtype.element_ty, weight)
        tl.store(u + b * d + i, r * p, mask=i < d)
        if grad_offset is not None:
            tl.store(grad_offset + b * d + i, -g * r * p, mask=i < d)
        if grad_log_sigma is not None:
            tl.store(grad_log_sigma + b * d + i, g * (1 - spread), mask=i < d)


@triton.jit
def columns_kernel(
    jac, log_sigma, loc, scale, upstream,
    jac_stride, loc_stride, scale_stride, upstream_stride,
    u,  # (B, d), from rows_kernel
    grad_jac, grad_loc, grad_scale,
    batch, d,
    packed_jac: tl.constexpr, weight: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """C columns of the gradients of one sample, diagonal posterior. R divides C."""
    b = tl.program_id(0).to(tl.int64)
    j0 = tl.program_id(1) * C
    j = j0 + tl.arange(0, C)
    jac += b * jac_stride
    u += b * d
    dtype: tl.constexpr = loc.dtype.element_ty
    g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
    m = vector(loc + b * loc_stride, j, d)
    s = tl.load(scale + b * scale_stride + j, mask=j < d, other=1.0)
    if grad_jac is not None:
        grad_jac += b * row_start(d, d, packed_jac)
        if not packed_jac:
            for i0 in range(0, j0, R):
                store_tile(grad_jac, i0 + tl.arange(0, R), j, tl.zeros((R, C), dtype=dtype), d, packed_jac)
    weighted = vector(u, j, d)
    norms = precision(log_sigma, j, d)
    for i0 in range(j0, d, R):
        i = i0 + tl.arange(0, R)
        A = tile_below(jac, i, j, d, packed_jac, 0)
        Ap = A * precision(log_sigma, i, d)[:, None]
        u_i = vector(u, i, d)
        weighted -= tl.sum(A * u_i[:, None], 0)
        norms += tl.sum(A * Ap, 0)
        if grad_jac is not None:
            tile = g * (Ap * (s * s)[None, :] - u_i[:, None] * m[None, :])
            store_tile(grad_jac, i, j, tl.where(j[None, :] < i[:, None], tile, 0.0), d, packed_jac)
    if grad_loc is not None:
        tl.store(grad_loc + b * d + j, g * weighted, mask=j < d)
    if grad_scale is not None:
        tl.store(grad_scale + b * d + j, g * (s * norms - 1 / s), mask=j < d)
