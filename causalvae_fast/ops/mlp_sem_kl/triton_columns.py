"""Triton kernels of `mlp_sem_kl` for gradients that are sums over nodes, and for those of the weights.

Names: a = w phi'(pre), so that J_ij = sum_k a_ik U_ikj m_ij; c = w phi'' H, so that the gradient of the pivot is
sum_ik c_ik U_ikj m_ij. G is the gradient of U m, the weights times the edges,

    G_ikj = sum_b a_ik (dJ_ij + df_i z_j) + c_ik z_j,

where dJ + df z = g J s^2 / sigma^2 + df loc for a diagonal posterior.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import precision, row_start
from causalvae_fast.ops.mlp_sem_kl.triton_rows import upstream_of_samples
from causalvae_fast.ops.mlp_sem_kl.triton_units import rows, units, weights_tile


@triton.jit
def row_of(a, w_in, edges, i, b, j, d, samples, hidden, dot: tl.constexpr, S: tl.constexpr, H: tl.constexpr,
           C: tl.constexpr):  # fmt: skip
    """Columns j (C,) of J_i of samples b (S,): (S, C)."""
    total = tl.zeros((S, C), dtype=a.dtype.element_ty)
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        U = weights_tile(w_in, edges, i, k, j, d, hidden)
        a_k = units(a, i, b, k, samples, hidden)
        total = tl.dot(a_k, U, total, input_precision=dot, out_dtype=total.dtype)
    return total


@triton.jit
def is_open(spans, i, j0, d, C: tl.constexpr):
    """Whether node i may have edges from C inputs, j0 and those after it."""
    found = i > j0
    if spans is not None:
        found = found & (tl.load(spans + i) < j0 + C) & (tl.load(spans + d + i) > j0)
    return found


@triton.jit
def columns_kernel(
    w_in, edges, log_sigma, scale, upstream,
    scale_stride, upstream_stride,
    spans,  # (2, d), or None
    a, c,  # (d, samples, hidden)
    df,  # (samples, d)
    grad_pivot, grad_loc, grad_scale,  # (blocks, samples, d): what each block of nodes adds; or None
    batch, d, hidden, samples, per_block,
    single: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr, S: tl.constexpr, H: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """C columns of the gradients of S samples, of the nodes of a block."""
    block, j0 = tl.program_id(1), tl.program_id(2) * C
    b = tl.program_id(0) * S + tl.arange(0, S)
    j = j0 + tl.arange(0, C)
    there = b < samples
    dtype: tl.constexpr = df.dtype.element_ty
    k = tl.arange(0, H)
    of_pivot = tl.zeros((S, C), dtype=dtype)
    of_loc = tl.zeros((S, C), dtype=dtype)
    norms = tl.zeros((S, C), dtype=dtype)
    start, end = tl.maximum(block * per_block, j0 + 1), tl.minimum((block + 1) * per_block, d)
    for node in range(0, end - start):
        i = start + node
        if is_open(spans, i, j0, d, C):
            if single:
                U = weights_tile(w_in, edges, i, k, j, d, hidden)
            if grad_loc is not None or grad_scale is not None:
                if single:
                    a_i = units(a, i, b, k, samples, hidden)
                    J = tl.dot(a_i, U, input_precision=dot, out_dtype=dtype)
                else:
                    J = row_of(a, w_in, edges, i, b, j, d, samples, hidden, dot, S, H, C)
                of_loc += J * tl.load(df + b.to(tl.int64) * d + i, mask=there, other=0.0)[:, None]
                norms += J * J * tl.exp(-2 * tl.load(log_sigma + i))
            if grad_pivot is not None:
                if single:
                    c_i = units(c, i, b, k, samples, hidden)
                    of_pivot = tl.dot(c_i, U, of_pivot, input_precision=dot, out_dtype=dtype)
                else:
                    of_pivot += row_of(c, w_in, edges, i, b, j, d, samples, hidden, dot, S, H, C)
    mask = there[:, None] & (j < d)[None, :]
    at = (block.to(tl.int64) * samples + b)[:, None] * d + j[None, :]
    if grad_pivot is not None:
        tl.store(grad_pivot + at, of_pivot, mask=mask)
    if grad_loc is not None:
        if block == 0:
            of_loc -= rows(df, b, d, j, d, there)
        tl.store(grad_loc + at, of_loc, mask=mask)
    if grad_scale is not None:
        g = upstream_of_samples(upstream, upstream_stride, b, there, batch, dtype, weight)
        s = rows(scale, b, scale_stride, j, d, there)
        if block == 0:
            norms += precision(log_sigma, j, d)[None, :] - 1 / tl.where(mask, s * s, 1.0)
        tl.store(grad_scale + at, g[:, None] * s * norms, mask=mask)


@triton.jit
def weights_kernel(
    w_in, edges, log_sigma, pivot, loc, scale, upstream,
    pivot_stride, loc_stride, scale_stride, upstream_stride,
    spans,  # (2, d), or None
    a, c,  # (d, samples, hidden)
    df,  # (samples, d)
    grad_jac,  # (samples, P): packed, for a full posterior
    weights,  # (splits, d, hidden, d): G of each part of the samples
    batch, d, hidden, samples, per_block, steps, added,
    full: tl.constexpr, single: tl.constexpr, curved: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    S: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """C columns of G of the nodes of a block, one after the other, summed over one part of the samples."""
    split, block, j0 = tl.program_id(0), tl.program_id(1), tl.program_id(2) * C
    j = j0 + tl.arange(0, C)
    start, end = tl.maximum(block * per_block, j0 + 1), tl.minimum((block + 1) * per_block, d)
    dtype: tl.constexpr = pivot.dtype.element_ty
    weights += split.to(tl.int64) * d * hidden * d
    for node in range(0, end - start):
        i = start + node
        if is_open(spans, i, j0, d, C):
            p = tl.exp(-2 * tl.load(log_sigma + i))
            for k0 in range(0, hidden, H):
                k = k0 + tl.arange(0, H)
                if single and not full:
                    U = weights_tile(w_in, edges, i, k, j, d, hidden)
                G = tl.zeros((H, C), dtype=dtype)
                for step in range(steps):
                    b = (split * steps + step) * S + tl.arange(0, S)
                    there = b < samples
                    df_i = tl.load(df + b.to(tl.int64) * d + i, mask=there, other=0.0)
                    a_i = units(a, i, b, k, samples, hidden)
                    if full:
                        of_row = rows(grad_jac + row_start(i, d, True), b, row_start(d, d, True), j, i, there)
                        of_row += rows(pivot, b, pivot_stride, j, i, there) * df_i[:, None]
                    else:
                        if single:
                            J = tl.dot(a_i, U, input_precision=dot, out_dtype=dtype)
                        else:
                            J = row_of(a, w_in, edges, i, b, j, d, samples, hidden, dot, S, H, C)
                        g = upstream_of_samples(upstream, upstream_stride, b, there, batch, dtype, weight)
                        s = rows(scale, b, scale_stride, j, i, there)
                        of_row = J * s * s * (g * p)[:, None]
                        of_row += rows(loc, b, loc_stride, j, i, there) * df_i[:, None]
                    G = tl.dot(tl.trans(a_i), of_row, G, input_precision=dot, out_dtype=dtype)
                    if curved:
                        c_i = units(c, i, b, k, samples, hidden)
                        z = rows(pivot, b, pivot_stride, j, i, there)
                        G = tl.dot(tl.trans(c_i), z, G, input_precision=dot, out_dtype=dtype)
                at = weights + i.to(tl.int64) * hidden * d + (k[:, None] * d + j[None, :])
                mask = (k < hidden)[:, None] & (j < i)[None, :]
                if added > 0:
                    G += tl.load(at, mask=mask, other=0.0)
                tl.store(at, G, mask=mask)


@triton.jit
def edges_kernel(
    w_in, edges,
    spans,  # (2, d), or None
    weights,  # (splits, d, hidden, d)
    grad_w_in, grad_edges,  # or None
    d, hidden, splits,
    H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """C inputs of a node: m G and sum_k U_k G_k, with the G of all parts of the samples added up."""
    i, j = tl.program_id(1), tl.program_id(0) * C + tl.arange(0, C)
    dtype: tl.constexpr = w_in.dtype.element_ty
    m = tl.load(edges + i * d + j, mask=j < i, other=0.0)
    there = j < i
    if spans is not None:  # nothing was written where edges are closed
        there = there & (m != 0)
    of_edges = tl.zeros((C,), dtype=dtype)
    size = tl.full((), 1, tl.int64) * d * hidden * d
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        at = (i.to(tl.int64) * hidden + k)[:, None] * d + j[None, :]
        mask = (k < hidden)[:, None] & there[None, :]
        G = tl.zeros((H, C), dtype=dtype)
        part = weights + at
        for _ in range(splits):
            G += tl.load(part, mask=mask, other=0.0)
            part += size
        if grad_w_in is not None:
            tl.store(grad_w_in + at, G * m[None, :], mask=(k < hidden)[:, None] & (j < d)[None, :])
        if grad_edges is not None:
            of_edges += tl.sum(G * tl.load(w_in + at, mask=mask, other=0.0), 0)
    if grad_edges is not None:
        tl.store(grad_edges + i * d + j, of_edges, mask=j < d)
