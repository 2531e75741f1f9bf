"""Tiles of triangular products, as Triton functions that kernels share (sem_kl/README.md, "On a GPU").

Of a matrix, only what is on and below the diagonal is read. `packed` matrices have rows of i + 1 elements.
"""

import triton
import triton.language as tl


@triton.jit
def row_start(i, d, packed: tl.constexpr):
    """Offset of the first element of row i."""
    if packed:
        return i * (i + 1) // 2
    return i * d


@triton.jit
def tile_below(matrix, i, j, d, packed: tl.constexpr, last: tl.constexpr):
    """Rows i (R,) and columns j (C,) of a matrix of d rows where j < i + last, otherwise 0: (R, C)."""
    mask = (j[None, :] < i[:, None] + last) & (i[:, None] < d)
    at = matrix + (row_start(i, d, packed)[:, None] + j[None, :])
    return tl.load(at, mask=mask, other=0.0, cache_modifier=".ca")  # a program reads most tiles again


@triton.jit
def tile_above(matrix, i, j, d, packed: tl.constexpr, last: tl.constexpr):
    """The same of the transposed matrix: elements (j, i) where i < j + last, read along its rows: (R, C)."""
    return tl.trans(tile_below(matrix, j, i, d, packed, last))


@triton.jit
def store_tile(matrix, i, j, values, d, packed: tl.constexpr):
    """Writes a tile (R, C) of a lower triangular matrix; above the diagonal, zeros, unless it is packed."""
    below = j[None, :] <= i[:, None]
    mask = (i[:, None] < d) & (j[None, :] < d)
    if packed:
        mask = mask & below
    at = matrix + (row_start(i, d, packed)[:, None] + j[None, :])
    tl.store(at, tl.where(below, values, 0.0), mask=mask)


@triton.jit
def store_below(matrix, i, j, values, d, packed: tl.constexpr):
    """Writes what a tile has on and below the diagonal."""
    mask = (i[:, None] < d) & (j[None, :] <= i[:, None])
    tl.store(matrix + (row_start(i, d, packed)[:, None] + j[None, :]), values, mask=mask)


@triton.jit
def vector(pointer, i, d):
    """Elements i of a vector of d, 0 beyond."""
    return tl.load(pointer + i, mask=i < d, other=0.0)


@triton.jit
def precision(log_sigma, i, d):
    """1 / sigma_i^2, 0 beyond d."""
    return tl.where(i < d, tl.exp(-2 * vector(log_sigma, i, d)), 0.0)


@triton.jit
def upstream_of(upstream, stride, b, batch, dtype: tl.constexpr, weight: tl.constexpr):
    """The gradient of the loss with respect to the divergence of sample b: given, 1, or 1 / B."""
    if weight == "given":
        return tl.load(upstream + b * stride)
    if weight == "sum":
        return tl.full((), 1.0, dtype)
    return tl.full((), 1.0, dtype) / batch  # which is a constant, and no tensor, where it is 1


@triton.jit
def residual(jac, offset, loc, i0, d, packed: tl.constexpr, T: tl.constexpr, K: tl.constexpr):
    """T elements, from i0 on, of r = W m - b."""
    i = i0 + tl.arange(0, T)
    total = vector(loc, i, d) - vector(offset, i, d)
    for k0 in range(0, tl.minimum(i0 + T, d), K):
        k = k0 + tl.arange(0, K)
        total -= tl.sum(tile_below(jac, i, k, d, packed, 0) * vector(loc, k, d)[None, :], 1)
    return total


@triton.jit
def product(jac, tril, i0, j0, d, packed_jac: tl.constexpr, packed_tril: tl.constexpr, T: tl.constexpr,
            C: tl.constexpr, K: tl.constexpr, dot: tl.constexpr):  # fmt: skip
    """The tile (T, C) of M = W L with its first element at (i0, j0): L_ij - sum_k A_ik L_kj, j <= k < i."""
    i, j = i0 + tl.arange(0, T), j0 + tl.arange(0, C)
    total = tl.zeros((T, C), dtype=tril.dtype.element_ty)
    for k0 in range(j0, tl.minimum(i0 + T, d), K):
        k = k0 + tl.arange(0, K)
        A = tile_below(jac, i, k, d, packed_jac, 0)
        L = tile_below(tril, k, j, d, packed_tril, 1)
        total = tl.dot(A, L, total, input_precision=dot, out_dtype=total.dtype)
    return tile_below(tril, i, j, d, packed_tril, 1) - total


@triton.jit
def product_with_transpose(N, tril, i0, j0, d, packed_n: tl.constexpr, packed_tril: tl.constexpr, T: tl.constexpr,
                           C: tl.constexpr, K: tl.constexpr, dot: tl.constexpr):  # fmt: skip
    """A tile (T, C) of N L^T: sum_k N_ik L_jk, k <= i and k <= j."""
    i, j = i0 + tl.arange(0, T), j0 + tl.arange(0, C)
    total = tl.zeros((T, C), dtype=tril.dtype.element_ty)
    for k0 in range(0, tl.minimum(tl.minimum(i0 + T, j0 + C), d), K):
        k = k0 + tl.arange(0, K)
        rows = tile_below(N, i, k, d, packed_n, 1)
        columns = tile_above(tril, k, j, d, packed_tril, 1)
        total = tl.dot(rows, columns, total, input_precision=dot, out_dtype=total.dtype)
    return total


@triton.jit
def transposed_product(jac, N, i0, j0, d, packed_jac: tl.constexpr, packed_n: tl.constexpr, T: tl.constexpr,
                       C: tl.constexpr, K: tl.constexpr, dot: tl.constexpr):  # fmt: skip
    """A tile (T, C) of W^T N without its term N: sum_k A_ki N_kj, k > i, for i0 >= j0."""
    i, j = i0 + tl.arange(0, T), j0 + tl.arange(0, C)
    total = tl.zeros((T, C), dtype=N.dtype.element_ty)
    for k0 in range(i0, d, K):
        k = k0 + tl.arange(0, K)
        columns = tile_above(jac, i, k, d, packed_jac, 0)
        rows = tile_below(N, k, j, d, packed_n, 1)
        total = tl.dot(columns, rows, total, input_precision=dot, out_dtype=total.dtype)
    return total


@triton.jit
def weighted_columns(jac, u, j0, d, packed: tl.constexpr, T: tl.constexpr, K: tl.constexpr):
    """T elements, from j0 on, of W^T u."""
    j = j0 + tl.arange(0, T)
    total = vector(u, j, d)
    for k0 in range(j0, d, K):
        k = k0 + tl.arange(0, K)
        total -= tl.sum(tile_below(jac, k, j, d, packed, 0) * vector(u, k, d)[:, None], 0)
    return total


@triton.jit
def inverse_diagonal(tril, i, j, d, packed: tl.constexpr):
    """The tile (i, j) of diag(1 / L_ii)."""
    scale = tl.load(tril + row_start(i, d, packed) + i, mask=i < d, other=1.0)
    return tl.where(i[:, None] == j[None, :], (1 / scale)[:, None], 0.0)
