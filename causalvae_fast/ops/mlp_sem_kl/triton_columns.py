"""Triton kernels of `mlp_sem_kl` for gradients that are sums over nodes, and for those of the weights.

Names: a = w phi'(pre), so that J_ij = sum_k a_ik U_ikj m_ij; c = w phi'' H, so that the gradient of the pivot is
sum_ik c_ik U_ikj m_ij. G is the gradient of U m, the weights times the edges:

    G_ikj = sum_b a_ik (dJ_ij + df_i z_j) + c_ik z_j,  and for a diagonal posterior  dJ + df z = g J s^2 / sigma^2 + df loc.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import precision, row_start, vector
from causalvae_fast.ops.mlp_sem_kl.triton_rows import upstream_of_samples
from causalvae_fast.ops.mlp_sem_kl.triton_units import rows, units, weights_tile


@triton.jit
def add_to_weights(target, i, k, j, values, d, hidden, again):
    """Writes units k (H,) and inputs j (C,) of node i of G, added to what is there if `again`."""
    mask = (k < hidden)[:, None] & (j < i)[None, :]
    at = target + (i.to(tl.int64) * hidden + k)[:, None] * d + j[None, :]
    if again:
        values += tl.load(at, mask=mask, other=0.0)
    tl.store(at, values, mask=mask)


@triton.jit
def columns_kernel(
    w_in, edges, log_sigma, pivot, loc, scale, upstream,
    pivot_stride, loc_stride, scale_stride, upstream_stride,
    spans,  # (2, d), or None
    a, c,  # (d, samples, hidden)
    df,  # (samples, d)
    grad_jac,  # (samples, P): packed, for a full posterior
    grad_pivot, grad_loc, grad_scale,  # (blocks, samples, d): what each block of nodes adds; or None
    weights,  # (splits, d, hidden, d): G of each part of the samples; or None
    batch, d, hidden, samples, per_block, steps, added,
    full: tl.constexpr, single: tl.constexpr, curved: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    S: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """C columns of the rows of a block of nodes, for one part of the samples, S at a time."""
    split, block, j0 = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2) * C
    j = j0 + tl.arange(0, C)
    start, end = tl.maximum(block * per_block, j0 + 1), tl.minimum((block + 1) * per_block, d)
    dtype: tl.constexpr = pivot.dtype.element_ty
    if weights is not None:
        weights += split * d * hidden * d
    for step in range(steps):
        b = (split * steps + step) * S + tl.arange(0, S)
        there = b < samples
        again = (added != 0) | (step > 0)
        z = rows(pivot, b, pivot_stride, j, d, there)
        of_pivot = tl.zeros((S, C), dtype=dtype)
        if not full:
            g = upstream_of_samples(upstream, upstream_stride, b, there, batch, dtype, weight)
            m = rows(loc, b, loc_stride, j, d, there)
            s = rows(scale, b, scale_stride, j, d, there)
            of_loc = tl.zeros((S, C), dtype=dtype)
            norms = tl.zeros((S, C), dtype=dtype)
        tl.debug_barrier()  # G of the last step has been written by other threads of this program
        for node in range(0, end - start):
            i = start + node
            open_tile = True
            if spans is not None:
                open_tile = (tl.load(spans + i) < j0 + C) & (tl.load(spans + d + i) > j0)
            if open_tile:
                k = tl.arange(0, H)
                df_i = tl.load(df + b * d + i, mask=there, other=0.0)
                if single:
                    a_i = units(a, i, b, k, samples, hidden)
                    U = weights_tile(w_in, edges, i, k, j, d, hidden)
                if full:
                    start_i = row_start(i, d, True)
                    of_row = rows(grad_jac + start_i, b, row_start(d, d, True), j, i, there) + df_i[:, None] * z
                else:
                    if single:
                        J = tl.dot(a_i, U, input_precision=dot, out_dtype=dtype)
                    else:
                        J = tl.zeros((S, C), dtype=dtype)
                        for k0 in range(0, hidden, H):
                            a_k = units(a, i, b, k0 + k, samples, hidden)
                            U_k = weights_tile(w_in, edges, i, k0 + k, j, d, hidden)
                            J = tl.dot(a_k, U_k, J, input_precision=dot, out_dtype=dtype)
                    p = tl.exp(-2 * tl.load(log_sigma + i))
                    of_loc += J * df_i[:, None]
                    norms += J * J * p
                    of_row = J * s * s * (g * p)[:, None] + m * df_i[:, None]
                for k0 in range(0, hidden, H):
                    if not single:
                        a_i = units(a, i, b, k0 + k, samples, hidden)
                        U = weights_tile(w_in, edges, i, k0 + k, j, d, hidden)
                    if curved:
                        c_i = units(c, i, b, k0 + k, samples, hidden)
                        if grad_pivot is not None:
                            of_pivot = tl.dot(c_i, U, of_pivot, input_precision=dot, out_dtype=dtype)
                    if weights is not None:
                        G = tl.dot(tl.trans(a_i), of_row, input_precision=dot, out_dtype=dtype)
                        if curved:
                            G = tl.dot(tl.trans(c_i), z, G, input_precision=dot, out_dtype=dtype)
                        add_to_weights(weights, i, k0 + k, j, G, d, hidden, again)
        mask = there[:, None] & (j < d)[None, :]
        at = (block.to(tl.int64) * samples + b)[:, None] * d + j[None, :]
        if grad_pivot is not None and curved:
            tl.store(grad_pivot + at, of_pivot, mask=mask)
        if not full:
            if grad_loc is not None:
                if block == 0:
                    of_loc -= rows(df, b, d, j, d, there)
                tl.store(grad_loc + at, of_loc, mask=mask)
            if grad_scale is not None:
                if block == 0:
                    norms += precision(log_sigma, j, d)[None, :] - 1 / tl.where(mask, s * s, 1.0)
                tl.store(grad_scale + at, g[:, None] * s * norms, mask=mask)


@triton.jit
def weights_kernel(
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
