"""Triton kernel of `mlp_sem_kl` for the hidden units, and what its other kernels share (README.md, "On a GPU").

Names: U_i m_i are the weights of node i's inputs, each times its edge; z the pivot, v = loc - z. A call takes the
`samples` samples of a chunk, of which (d, samples, hidden) numbers are kept: node, sample, unit. Offsets of
samples and of nodes are 64-bit, those within a node 32-bit.
"""

import triton
import triton.language as tl


@triton.jit
def activation_of(x, activation: tl.constexpr):
    """phi(x), phi'(x), phi''(x). Exponentials are of numbers that are not positive, so nothing overflows."""
    if activation == "leaky_relu":
        slope = tl.where(x > 0, tl.full(x.shape, 1.0, x.dtype), tl.full(x.shape, 0.01, x.dtype))
        value, curvature = x * slope, x * 0
    else:
        e = tl.exp(-tl.abs(x) if activation != "tanh" else -2 * tl.abs(x))
        large = 1 / (1 + e)
        if activation == "tanh":
            value = (1 - e) * large
            value = tl.where(x < 0, -value, value)
            slope = 4 * e * large * large
            curvature = -2 * value * slope
        else:
            small = e * large
            gate, rest = tl.where(x < 0, small, large), tl.where(x < 0, large, small)
            if activation == "silu":
                value = x * gate
                slope = gate * (1 + x * rest)
                curvature = gate * rest * (2 + x * (rest - gate))
            else:
                value = tl.where(x < 0, 0.0, x) + tl.log(1 + e)
                slope = gate
                curvature = gate * rest
    return value, slope, curvature


@triton.jit
def weights_tile(w_in, edges, i, k, j, d, hidden):
    """Units k (H,) and inputs j (C,) of U_i m_i, 0 where j is no parent of node i: (H, C)."""
    there = j < i
    U = tl.load(
        w_in + i.to(tl.int64) * hidden * d + (k[:, None] * d + j[None, :]),
        mask=(k < hidden)[:, None] & there[None, :],
        other=0.0,
        cache_modifier=".ca",
    )
    return U * tl.load(edges + i * d + j, mask=there, other=0.0)[None, :]


@triton.jit
def rows(matrix, b, stride, j, d, there):
    """Samples b (S,) and columns j (C,) of a matrix of d columns, 0 beyond: (S, C)."""
    return tl.load(
        matrix + b.to(tl.int64)[:, None] * stride + j[None, :],
        mask=there[:, None] & (j < d)[None, :],
        other=0.0,
        cache_modifier=".ca",
    )


@triton.jit
def units(kept, i, b, k, samples, hidden):
    """Samples b (S,) and units k (H,) of node i of what is kept of a chunk, 0 beyond: (S, H)."""
    mask = (b < samples)[:, None] & (k < hidden)[None, :]
    at = kept + i.to(tl.int64) * samples * hidden + (b[:, None] * hidden + k[None, :])
    return tl.load(at, mask=mask, other=0.0, cache_modifier=".ca")


@triton.jit
def store_units(kept, i, b, k, values, samples, hidden):
    """Writes what `units` reads."""
    mask = (b < samples)[:, None] & (k < hidden)[None, :]
    tl.store(kept + i.to(tl.int64) * samples * hidden + (b[:, None] * hidden + k[None, :]), values, mask=mask)


@triton.jit
def parents_of(spans, i, d, C: tl.constexpr):
    """Between which inputs the edges of node i lie that are not 0, from a multiple of C on: all before it where
    nothing is known.
    """
    start, end = i * 0, i
    if spans is not None:
        start, end = tl.load(spans + i) // C * C, tl.load(spans + d + i)
    return start, end


@triton.jit
def spans_kernel(
    edges,  # (d, d)
    spans,  # (2, d): the first edge of each node that is not 0, and one more than the last
    d,
    C: tl.constexpr,
):  # fmt: skip
    """One node."""
    i = tl.program_id(0)
    least, most = tl.full((C,), 0, tl.int32) + i, tl.full((C,), 0, tl.int32)
    for j0 in range(0, i, C):
        j = j0 + tl.arange(0, C)
        there = tl.load(edges + i * d + j, mask=j < i, other=0.0) != 0
        least = tl.where(there & (j < least), j, least)
        most = tl.where(there, j + 1, most)
    tl.store(spans + i, tl.min(least, 0))
    tl.store(spans + d + i, tl.max(most, 0))


@triton.jit
def units_kernel(
    pivot, w_in, b_in, w_out, b_out, edges, loc,
    pivot_stride, loc_stride,
    spans,  # (2, d), or None
    pre, moved,  # (d, samples, hidden): pre_i, and U_i (m_i v); or None
    residual,  # (samples, d): loc - f - J v for a diagonal posterior, f - z for a full one
    d, hidden, samples,
    full: tl.constexpr, activation: tl.constexpr, S: tl.constexpr, N: tl.constexpr, H: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """S samples and N nodes: their hidden units, H at a time, and with J v = sum_k w_k phi'(pre_k) (U (m v))_k the
    residuals, whose products are in full precision: where they are small and means are not, digits cancel.
    """
    i0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * N
    b = tl.program_id(0) * S + tl.arange(0, S)
    there = b < samples
    node = i0 + tl.arange(0, N)
    dtype: tl.constexpr = loc.dtype.element_ty
    start, end = 0, tl.minimum(i0 + N, d) - 1
    if spans is not None:
        start = tl.min(tl.load(spans + node, mask=node < d, other=d), 0) // C * C
        end = tl.max(tl.load(spans + d + node, mask=node < d, other=0), 0)
    f = tl.zeros((S, N), dtype=dtype)
    for k0 in range(0, hidden, H):
        u = tl.arange(0, N * H)
        i, k = i0 + u // H, k0 + u % H
        exists = (i < d) & (k < hidden)
        row = i.to(tl.int64) * hidden + k
        total = tl.zeros((S, N * H), dtype=dtype)
        shifted = tl.zeros((S, N * H), dtype=dtype)
        for j0 in range(start, end, C):
            j = j0 + tl.arange(0, C)
            mask = exists[:, None] & (j[None, :] < i[:, None])
            U = tl.load(w_in + row[:, None] * d + j[None, :], mask=mask, other=0.0)
            U *= tl.load(edges + i[:, None] * d + j[None, :], mask=mask, other=0.0)
            U = tl.trans(U)
            z = rows(pivot, b, pivot_stride, j, end, there)
            total = tl.dot(z, U, total, input_precision="ieee", out_dtype=dtype)
            if not full:
                v = rows(loc, b, loc_stride, j, end, there) - z
                shifted = tl.dot(v, U, shifted, input_precision="ieee", out_dtype=dtype)
        total += tl.load(b_in + row, mask=exists, other=0.0)[None, :]
        w = tl.load(w_out + row, mask=exists, other=0.0)[None, :]
        value, slope, _ = activation_of(total, activation)
        terms = w * value
        if not full:
            terms += w * slope * shifted
        f += tl.sum(tl.reshape(terms, (S, N, H)), 2)
        at = (i.to(tl.int64)[None, :] * samples + b[:, None]) * hidden + k[None, :]
        kept = there[:, None] & exists[None, :]
        if pre is not None:
            tl.store(pre + at, total, mask=kept)
        if moved is not None:
            tl.store(moved + at, shifted, mask=kept)
    f += tl.load(b_out + node, mask=node < d, other=0.0)[None, :]
    if full:
        f -= rows(pivot, b, pivot_stride, node, d, there)
    else:
        f = rows(loc, b, loc_stride, node, d, there) - f
    tl.store(residual + b.to(tl.int64)[:, None] * d + node[None, :], f, mask=there[:, None] & (node < d)[None, :])
