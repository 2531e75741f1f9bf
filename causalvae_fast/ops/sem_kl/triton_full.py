"""Triton kernels of `sem_kl` for full posteriors: triangular products, tile by tile.

`first` is the first sample of a chunk of the batch.

Names: with M = W L and r = W m - b, N = D^-1 M and u = D^-1 r. A gradient that is not wanted is None. Offsets
of samples are 64-bit, those within a sample 32-bit.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import (
    inverse_diagonal,
    precision,
    product,
    product_with_transpose,
    residual,
    row_start,
    store_below,
    store_tile,
    tile_below,
    transposed_product,
    upstream_of,
    vector,
    weighted_columns,
)


@triton.jit
def sample_kernel(
    jac, offset, log_sigma, loc, factor, upstream,
    jac_stride, offset_stride, loc_stride, factor_stride, upstream_stride,
    value,  # (B,)
    N,  # (B, d, d) or (B, P), laid out as scale_tril; may be grad_factor
    u,  # (B, d)
    grad_jac, grad_offset, grad_log_sigma, grad_loc, grad_factor,
    batch, d,
    packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One sample, tile by tile. N may be the memory of grad_factor, which replaces it."""
    b = tl.program_id(0).to(tl.int64)
    jac_size, factor_size = row_start(d, d, packed_jac), row_start(d, d, packed_tril)
    jac += b * jac_stride
    offset += b * offset_stride
    loc += b * loc_stride
    factor += b * factor_stride
    tiles = tl.cdiv(d, T)
    dtype: tl.constexpr = loc.dtype.element_ty
    if weight != "none":
        g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
        N += b * factor_size
        u += b * d
    kl = tl.full((), 0.0, dtype)
    for tile_i in range(tiles):
        i = tile_i * T + tl.arange(0, T)
        p = precision(log_sigma, i, d)
        r = residual(jac, offset, loc, tile_i * T, d, packed_jac, T, K)
        spread = r * r * p
        for tile_j in range(tile_i + 1):
            M = product(jac, factor, tile_i * T, tile_j * T, d, packed_jac, packed_tril, T, T, K, dot)
            spread += tl.sum(M * M * p[:, None], 1)
            if weight != "none":
                store_tile(N, i, tile_j * T + tl.arange(0, T), M * p[:, None], d, packed_tril)
        scale = tl.load(factor + row_start(i, d, packed_tril) + i, mask=i < d, other=1.0)
        kl += 0.5 * tl.sum(spread) + tl.sum(vector(log_sigma, i, d) - tl.log(scale))
        if weight != "none":
            tl.store(u + i, r * p, mask=i < d)
            if grad_offset is not None:
                tl.store(grad_offset + b * d + i, -g * r * p, mask=i < d)
            if grad_log_sigma is not None:
                tl.store(grad_log_sigma + b * d + i, g * (1 - spread), mask=i < d)
    tl.store(value + b, kl - 0.5 * d)
    if weight != "none":
        tl.debug_barrier()  # N and u have been written by other threads of this program
        if grad_loc is not None:
            for tile_j in range(tiles):
                j = tile_j * T + tl.arange(0, T)
                columns = weighted_columns(jac, u, tile_j * T, d, packed_jac, T, K)
                tl.store(grad_loc + b * d + j, g * columns, mask=j < d)
        if grad_jac is not None:
            grad_jac += b * jac_size
            for tile_i in range(tiles):
                i = tile_i * T + tl.arange(0, T)
                u_i = vector(u, i, d)
                for tile_j in range(tile_i + 1):
                    j = tile_j * T + tl.arange(0, T)
                    tile = product_with_transpose(
                        N, factor, tile_i * T, tile_j * T, d, packed_tril, packed_tril, T, T, K, dot
                    )
                    tile = -g * (tile + u_i[:, None] * vector(loc, j, d)[None, :])
                    store_tile(grad_jac, i, j, tl.where(j[None, :] < i[:, None], tile, 0.0), d, packed_jac)
                if not packed_jac:
                    for tile_j in range(tile_i + 1, tiles):
                        j = tile_j * T + tl.arange(0, T)
                        store_tile(grad_jac, i, j, tl.zeros((T, T), dtype=dtype), d, packed_jac)
        if grad_factor is not None:
            grad_factor += b * factor_size
            for tile_j in range(tiles):
                j = tile_j * T + tl.arange(0, T)
                if not packed_tril:
                    for tile_i in range(tile_j):
                        i = tile_i * T + tl.arange(0, T)
                        store_tile(grad_factor, i, j, tl.zeros((T, T), dtype=dtype), d, packed_tril)
                # Rows in ascending order: a tile is N until it and all above it in its columns are gradients.
                for tile_i in range(tile_j, tiles):
                    i = tile_i * T + tl.arange(0, T)
                    tile = transposed_product(
                        jac, N, tile_i * T, tile_j * T, d, packed_jac, packed_tril, T, T, K, dot
                    )
                    tile = tile_below(N, i, j, d, packed_tril, 1) - tile
                    tile = g * (tile - inverse_diagonal(factor, i, j, d, packed_tril))
                    tl.debug_barrier()  # every thread has read the tile of N
                    store_tile(grad_factor, i, j, tile, d, packed_tril)


@triton.jit
def product_kernel(
    jac, offset, log_sigma, loc, factor, upstream,
    jac_stride, offset_stride, loc_stride, factor_stride, upstream_stride,
    value,  # (B, tiles (tiles + 1) / 2): what each tile adds
    N,  # (chunk, d, d) or (chunk, P), laid out as scale_tril
    u,  # (B, d)
    grad_offset,  # (B, d)
    grad_log_sigma,  # (B, tiles, d): what each column of tiles adds
    batch, d, first,
    packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tile of N of one sample, and what it adds to the divergence. Those that take longest come first."""
    slot = tl.program_id(0).to(tl.int64)
    b = slot + first
    tiles = tl.num_programs(1)
    tile_j = tl.program_id(2)
    tile_i = tile_j + tiles - 1 - tl.program_id(1)
    if tile_i < tiles:
        i, j = tile_i * T + tl.arange(0, T), tile_j * T + tl.arange(0, T)
        jac += b * jac_stride
        factor += b * factor_stride
        dtype: tl.constexpr = loc.dtype.element_ty
        p = precision(log_sigma, i, d)
        M = product(jac, factor, tile_i * T, tile_j * T, d, packed_jac, packed_tril, T, T, K, dot)
        spread = tl.sum(M * M * p[:, None], 1)
        if weight != "none":
            g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
            store_below(N + slot * row_start(d, d, packed_tril), i, j, M * p[:, None], d, packed_tril)
        if tile_j == 0:
            r = residual(jac, offset + b * offset_stride, loc + b * loc_stride, tile_i * T, d, packed_jac, T, K)
            spread += r * r * p
            if weight != "none":
                tl.store(u + b * d + i, r * p, mask=i < d)
                if grad_offset is not None:
                    tl.store(grad_offset + b * d + i, -g * r * p, mask=i < d)
        kl = 0.5 * tl.sum(spread)
        share = -spread
        if tile_i == tile_j:
            scale = tl.load(factor + row_start(i, d, packed_tril) + i, mask=i < d, other=1.0)
            kl += tl.sum(tl.where(i < d, vector(log_sigma, i, d) - tl.log(scale) - 0.5, 0.0))
            share += 1
        tl.store(value + b * (tiles * (tiles + 1) // 2) + tile_i * (tile_i + 1) // 2 + tile_j, kl)
        if weight != "none" and grad_log_sigma is not None:
            at = grad_log_sigma + b * (tiles * d) + i
            tl.store(at + tile_j * d, g * share, mask=i < d)
            if tile_i == tile_j:
                for other in range(tile_j + 1, tiles):  # columns of tiles above the diagonal add nothing
                    tl.store(at + other * d, tl.zeros((T,), dtype=dtype), mask=i < d)


@triton.jit
def gradient_kernel(
    jac, loc, factor, upstream,
    jac_stride, loc_stride, factor_stride, upstream_stride,
    N, u,  # from product_kernel
    grad_jac, grad_loc, grad_factor,
    batch, d, first,
    packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tile of the gradients of one sample. Those on the diagonal, which take longest, come first."""
    slot = tl.program_id(0).to(tl.int64)
    b = slot + first
    tiles = tl.num_programs(1)
    tile_j = tl.program_id(2)
    tile_i = tile_j + tl.program_id(1)
    if tile_i >= tiles:
        tile_i -= tiles
    i, j = tile_i * T + tl.arange(0, T), tile_j * T + tl.arange(0, T)
    jac += b * jac_stride
    factor += b * factor_stride
    N += slot * row_start(d, d, packed_tril)
    u += b * d
    dtype: tl.constexpr = loc.dtype.element_ty
    if grad_jac is not None:
        grad_jac += b * row_start(d, d, packed_jac)
    if grad_factor is not None:
        grad_factor += b * row_start(d, d, packed_tril)
    if tile_i < tile_j:
        zeros = tl.zeros((T, T), dtype=dtype)
        if grad_jac is not None:
            store_tile(grad_jac, i, j, zeros, d, packed_jac)
        if grad_factor is not None:
            store_tile(grad_factor, i, j, zeros, d, packed_tril)
    else:
        g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
        if grad_jac is not None:
            tile = product_with_transpose(
                N, factor, tile_i * T, tile_j * T, d, packed_tril, packed_tril, T, T, K, dot
            )
            m = vector(loc + b * loc_stride, j, d)
            tile = -g * (tile + vector(u, i, d)[:, None] * m[None, :])
            store_tile(grad_jac, i, j, tl.where(j[None, :] < i[:, None], tile, 0.0), d, packed_jac)
        if grad_factor is not None:
            tile = transposed_product(jac, N, tile_i * T, tile_j * T, d, packed_jac, packed_tril, T, T, K, dot)
            tile = tile_below(N, i, j, d, packed_tril, 1) - tile
            tile = g * (tile - inverse_diagonal(factor, i, j, d, packed_tril))
            store_tile(grad_factor, i, j, tile, d, packed_tril)
        if grad_loc is not None and tile_i == tile_j:
            columns = weighted_columns(jac, u, tile_j * T, d, packed_jac, T, K)
            tl.store(grad_loc + b * d + j, g * columns, mask=j < d)
