"""Triton kernels of `sem_kl` for full posteriors and their gradients, in panels of rows, then of columns.

N lies in the memory of the gradient of scale_tril, so that no matrix but inputs and outputs is moved: its rows are
complete, and used for the gradient of jac, in one launch, and replaced column by column in the next.

Names: with M = W L and r = W m - b, N = D^-1 M and u = D^-1 r. A gradient that is not wanted is None. Offsets
of samples are 64-bit, those within a sample 32-bit. `first` is the first sample of a chunk of the batch.
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
    tile_above,
    tile_below,
    transposed_product,
    upstream_of,
    vector,
    weighted_columns,
)


@triton.jit
def row_panel_kernel(
    jac, offset, log_sigma, loc, factor, upstream,
    jac_stride, offset_stride, loc_stride, factor_stride, upstream_stride,
    value,  # (B, panels): what each panel adds
    N,  # (B, d, d) or (B, P), laid out as scale_tril
    u,  # (B, d)
    grad_jac, grad_offset, grad_log_sigma,
    batch, d, first,
    packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    T: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """T rows of N of one sample, and of the gradient of jac. Those that take longest, the last, come first."""
    b = tl.program_id(0).to(tl.int64) + first
    panel = tl.num_programs(1) - 1 - tl.program_id(1)
    i0 = panel * T
    i = i0 + tl.arange(0, T)
    jac += b * jac_stride
    loc += b * loc_stride
    factor += b * factor_stride
    N += b * row_start(d, d, packed_tril)
    g = upstream_of(upstream, upstream_stride, b, batch, loc.dtype.element_ty, weight)
    p = precision(log_sigma, i, d)
    r = residual(jac, offset + b * offset_stride, loc, i0, d, packed_jac, T, K)
    u_i = r * p
    spread = r * u_i
    for j0 in range(0, i0 + T, C):
        M = product(jac, factor, i0, j0, d, packed_jac, packed_tril, T, C, K, dot)
        rows = M * p[:, None]
        spread += tl.sum(M * rows, 1)
        store_below(N, i, j0 + tl.arange(0, C), rows, d, packed_tril)
    scale = tl.load(factor + row_start(i, d, packed_tril) + i, mask=i < d, other=1.0)
    kl = 0.5 * tl.sum(spread) + tl.sum(tl.where(i < d, vector(log_sigma, i, d) - tl.log(scale) - 0.5, 0.0))
    tl.store(value + b * tl.num_programs(1) + panel, kl)
    tl.store(u + b * d + i, u_i, mask=i < d)
    if grad_offset is not None:
        tl.store(grad_offset + b * d + i, -g * u_i, mask=i < d)
    if grad_log_sigma is not None:
        tl.store(grad_log_sigma + b * d + i, g * (1 - spread), mask=i < d)
    if grad_jac is not None:
        grad_jac += b * row_start(d, d, packed_jac)
        tl.debug_barrier()  # rows of N have been written by other threads of this program
        for j0 in range(0, i0 + T, C):
            j = j0 + tl.arange(0, C)
            tile = product_with_transpose(N, factor, i0, j0, d, packed_tril, packed_tril, T, C, K, dot)
            tile = -g * (tile + u_i[:, None] * vector(loc, j, d)[None, :])
            store_tile(grad_jac, i, j, tl.where(j[None, :] < i[:, None], tile, 0.0), d, packed_jac)


@triton.jit
def transposed_products(jac, N, i0, j, d, packed_jac: tl.constexpr, packed_n: tl.constexpr, R: tl.constexpr,
                        C: tl.constexpr, K: tl.constexpr, dot: tl.constexpr):  # fmt: skip
    """Two tiles (R, C), one below the other, of W^T N, each without its term N: sum_k A_ki N_kj, k > i >= j."""
    i = i0 + tl.arange(0, R)
    upper = tl.zeros((R, C), dtype=N.dtype.element_ty)
    lower = tl.zeros((R, C), dtype=N.dtype.element_ty)
    for k0 in range(i0, tl.minimum(i0 + R, d), K):  # where A_ki of the lower tile is zero
        k = k0 + tl.arange(0, K)
        rows = tile_below(N, k, j, d, packed_n, 1)
        columns = tile_above(jac, i, k, d, packed_jac, 0)
        upper = tl.dot(columns, rows, upper, input_precision=dot, out_dtype=upper.dtype)
    for k0 in range(i0 + R, d, K):
        k = k0 + tl.arange(0, K)
        rows = tile_below(N, k, j, d, packed_n, 1)
        columns = tile_above(jac, i, k, d, packed_jac, 0)
        upper = tl.dot(columns, rows, upper, input_precision=dot, out_dtype=upper.dtype)
        columns = tile_above(jac, i + R, k, d, packed_jac, 0)
        lower = tl.dot(columns, rows, lower, input_precision=dot, out_dtype=lower.dtype)
    return upper, lower


@triton.jit
def replace(N, factor, i, j, g, tile, d, packed: tl.constexpr):
    """A tile of N by that of the gradient of scale_tril, g (N - tile - diag(1 / L_ii))."""
    tile = g * (tile_below(N, i, j, d, packed, 1) - tile - inverse_diagonal(factor, i, j, d, packed))
    tl.debug_barrier()  # every thread has read what this and the product need of the tile
    store_tile(N, i, j, tile, d, packed)


@triton.jit
def zero_rows(matrix, end, j, d, R: tl.constexpr, C: tl.constexpr):
    """Zeros in columns j (C,) of the rows before `end`, a multiple of R."""
    for i0 in range(0, end, R):
        store_tile(matrix, i0 + tl.arange(0, R), j, tl.zeros((R, C), dtype=matrix.dtype.element_ty), d, False)


@triton.jit
def column_panel_kernel(
    jac, factor, upstream,
    jac_stride, factor_stride, upstream_stride,
    N,  # (B, d, d) or (B, P), laid out as scale_tril, whose gradient it becomes
    u,  # (B, d)
    grad_jac, grad_loc,
    batch, d, first,
    packed_jac: tl.constexpr, packed_tril: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    T: tl.constexpr, R: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """2 R columns of the gradients of one sample, 2 R rows at a time. Of that of jac, if it is not None, the
    zeros beyond the tiles that row_panel_kernel wrote, which are T wide or high. Columns that take longest, the
    first, come first.
    """
    C: tl.constexpr = 2 * R
    b = tl.program_id(0).to(tl.int64) + first
    j0 = tl.program_id(1) * C
    j = j0 + tl.arange(0, C)
    jac += b * jac_stride
    dtype: tl.constexpr = u.dtype.element_ty
    g = upstream_of(upstream, upstream_stride, b, batch, dtype, weight)
    if grad_loc is not None:
        columns = weighted_columns(jac, u + b * d, j0, d, packed_jac, C, K)
        tl.store(grad_loc + b * d + j, g * columns, mask=j < d)
    if grad_jac is not None and not packed_jac:
        grad_jac += b * (d * d)
        zero_rows(grad_jac, j0 // T * T, j, d, R, C)
    factor += b * factor_stride
    N += b * row_start(d, d, packed_tril)
    if not packed_tril:
        zero_rows(N, j0, j, d, R, C)
    # Rows in ascending order: a tile is N until it and all above it in its columns are gradients.
    i = j0 + tl.arange(0, R)  # of the first R rows, the other R columns are above the diagonal
    corner = transposed_product(jac, N, j0, j0, d, packed_jac, packed_tril, R, R, K, dot)
    replace(N, factor, i, i, g, corner, d, packed_tril)
    if not packed_tril:
        store_tile(N, i, i + R, tl.zeros((R, R), dtype=dtype), d, False)
    tile = transposed_product(jac, N, j0 + R, j0, d, packed_jac, packed_tril, R, C, K, dot)
    replace(N, factor, i + R, j, g, tile, d, packed_tril)
    for i0 in range(j0 + C, d, C):
        i = i0 + tl.arange(0, R)
        upper, lower = transposed_products(jac, N, i0, j, d, packed_jac, packed_tril, R, C, K, dot)
        replace(N, factor, i, j, g, upper, d, packed_tril)
        replace(N, factor, i + R, j, g, lower, d, packed_tril)
