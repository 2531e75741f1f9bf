"""Triton kernels of `mlp_sem_kl` for one row of the Jacobian, of one node, of a tile of samples.

Names: a = w phi'(pre), so that J_ij = sum_k a_ik U_ikj m_ij, and H_ik = sum_j dJ_ij U_ikj m_ij is what J passes to
unit k. A call takes the `samples` samples of a chunk, of which (d, samples, hidden) numbers are kept.
"""

import triton
import triton.language as tl

from causalvae_fast.ops._triton_tiles import row_start, upstream_of, vector
from causalvae_fast.ops.mlp_sem_kl.triton_units import (
    activation_of,
    parents_of,
    rows,
    store_units,
    units,
    weights_tile,
)


@triton.jit
def slopes(pre, w_out, i, b, k, samples, hidden, activation: tl.constexpr):
    """a of samples b (S,) and units k (H,) of node i: (S, H)."""
    _, slope, _ = activation_of(units(pre, i, b, k, samples, hidden), activation)
    return slope * vector(w_out + i.to(tl.int64) * hidden, k, hidden)[None, :]


@triton.jit
def jacobian_tile(pre, w_in, w_out, edges, i, b, j, d, samples, hidden, activation: tl.constexpr,
                  dot: tl.constexpr, S: tl.constexpr, H: tl.constexpr, C: tl.constexpr):  # fmt: skip
    """Columns j (C,) of J_i of samples b (S,), for units that are more than H: (S, C)."""
    total = tl.zeros((S, C), dtype=pre.dtype.element_ty)
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        a = slopes(pre, w_out, i, b, k, samples, hidden, activation)
        U = weights_tile(w_in, edges, i, k, j, d, hidden)
        total = tl.dot(a, U, total, input_precision=dot, out_dtype=total.dtype)
    return total


@triton.jit
def upstream_of_samples(upstream, stride, b, there, batch, dtype: tl.constexpr, weight: tl.constexpr):
    """The gradient of the loss with respect to the divergences of samples b, 0 beyond the batch."""
    if weight == "given":
        g = tl.load(upstream + b.to(tl.int64) * stride, mask=there, other=0.0)
    else:
        g = tl.where(there, upstream_of(upstream, stride, b, batch, dtype, weight), 0.0)
    return g


@triton.jit
def finish_units(passed, df, pre, curved, sums, w_out, i, b, k, d, samples, hidden, activation: tl.constexpr):
    """From H and df of samples b (S,): w phi'' H in the place of `curved`, and gradients of w_out and b_in."""
    x = units(pre, i, b, k, samples, hidden)
    w = vector(w_out + i.to(tl.int64) * hidden, k, hidden)[None, :]
    value, slope, curvature = activation_of(x, activation)
    c = w * curvature * passed
    if activation == "leaky_relu":
        c = tl.zeros_like(c)
    else:
        store_units(curved, i, b, k, c, samples, hidden)
    at = i * hidden + k
    tl.store(sums + at, tl.sum(df[:, None] * value + passed * slope, 0), mask=k < hidden)
    tl.store(sums + d * hidden + at, tl.sum(w * slope * df[:, None] + c, 0), mask=k < hidden)


@triton.jit
def replace_by_slopes(pre, w_out, i, b, d, samples, hidden, activation: tl.constexpr, H: tl.constexpr):
    """a in the place of pre."""
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        a = slopes(pre, w_out, i, b, k, samples, hidden, activation)
        tl.debug_barrier()  # every thread has read its part
        store_units(pre, i, b, k, a, samples, hidden)


@triton.jit
def rows_kernel(
    w_in, w_out, edges, log_sigma, scale, upstream,
    scale_stride, upstream_stride,
    spans,  # (2, d), or None
    pre,  # (d, samples, hidden); a replaces it
    moved,  # (d, samples, hidden): U_i (m_i v); w phi'' H replaces it
    residual,  # (samples, d); df replaces it
    value,  # (samples, d): what each node adds
    sums,  # (tiles of samples, 2 d (hidden + 1)): gradients of w_out, b_in, b_out, log_sigma; or None
    batch, d, hidden, samples,
    single: tl.constexpr, activation: tl.constexpr, weight: tl.constexpr, dot: tl.constexpr,
    S: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """A diagonal posterior: |M_i|^2, and H_k = g (sum_j J_ij s_j^2 m_ij U_ikj - r_i q_ik) / sigma_i^2,
    with q_i = U_i (m_i v).
    """
    i = tl.num_programs(1) - 1 - tl.program_id(1)
    b = tl.program_id(0) * S + tl.arange(0, S)
    there = b < samples
    dtype: tl.constexpr = scale.dtype.element_ty
    p = tl.exp(-2 * tl.load(log_sigma + i))
    s_i = tl.load(scale + b.to(tl.int64) * scale_stride + i, mask=there, other=1.0)
    r = tl.load(residual + b.to(tl.int64) * d + i, mask=there, other=0.0)
    spread = s_i * s_i
    start, end = parents_of(spans, i, d, C)
    if weight != "none":
        g = upstream_of_samples(upstream, upstream_stride, b, there, batch, dtype, weight)
        sums += tl.program_id(0).to(tl.int64) * (2 * d * (hidden + 1))
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        total = tl.zeros((S, H), dtype=dtype)
        if single:
            a = slopes(pre, w_out, i, b, k, samples, hidden, activation)
        for j0 in range(start, end, C):
            j = j0 + tl.arange(0, C)
            s = rows(scale, b, scale_stride, j, i, there)
            if single:
                U = weights_tile(w_in, edges, i, k, j, d, hidden)
                J = tl.dot(a, U, input_precision=dot, out_dtype=dtype)
            else:
                J = jacobian_tile(pre, w_in, w_out, edges, i, b, j, d, samples, hidden, activation, dot, S, H, C)
                U = weights_tile(w_in, edges, i, k, j, d, hidden)
            scaled = J * s * s
            if k0 == 0:
                spread += tl.sum(J * scaled, 1)
            if weight != "none":
                total = tl.dot(scaled, tl.trans(U), total, input_precision=dot, out_dtype=dtype)
        if weight != "none":
            q = units(moved, i, b, k, samples, hidden)
            tl.debug_barrier()  # every thread has read its part
            passed = (g * p)[:, None] * (total - r[:, None] * q)
            finish_units(passed, -g * p * r, pre, moved, sums, w_out, i, b, k, d, samples, hidden, activation)
    spread = (spread + r * r) * p
    kl = 0.5 * (spread - 1) + tl.load(log_sigma + i) - tl.log(s_i)
    tl.store(value + b.to(tl.int64) * d + i, kl, mask=there)
    if weight != "none":
        replace_by_slopes(pre, w_out, i, b, d, samples, hidden, activation, H)
        df = -g * p * r
        tl.store(residual + b.to(tl.int64) * d + i, df, mask=there)
        sums += 2 * d * hidden
        tl.store(sums + i, tl.sum(df))
        tl.store(sums + d + i, tl.sum(tl.where(there, g * (1 - spread), 0.0)))


@triton.jit
def jacobian_kernel(
    w_in, w_out, edges,
    spans,  # (2, d), or None
    pre,  # (d, samples, hidden)
    jac,  # (samples, P): packed
    d, hidden, samples,
    single: tl.constexpr, activation: tl.constexpr, dot: tl.constexpr,
    S: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """A full posterior: a row of the Jacobian of each sample of a tile."""
    i = tl.num_programs(1) - 1 - tl.program_id(1)
    b = tl.program_id(0) * S + tl.arange(0, S)
    jac += b.to(tl.int64)[:, None] * row_start(d, d, True) + row_start(i, d, True)
    start, end = parents_of(spans, i, d, C)
    k = tl.arange(0, H)
    if single:
        a = slopes(pre, w_out, i, b, k, samples, hidden, activation)
    for j0 in range(0, i, C):
        j = j0 + tl.arange(0, C)
        if (j0 + C > start) & (j0 < end):
            if single:
                U = weights_tile(w_in, edges, i, k, j, d, hidden)
                J = tl.dot(a, U, input_precision=dot, out_dtype=jac.dtype.element_ty)
            else:
                J = jacobian_tile(pre, w_in, w_out, edges, i, b, j, d, samples, hidden, activation, dot, S, H, C)
        else:
            J = tl.zeros((S, C), dtype=jac.dtype.element_ty)
        tl.store(jac + j[None, :], J, mask=(b < samples)[:, None] & (j < i)[None, :])


@triton.jit
def hidden_kernel(
    w_in, w_out, edges,
    spans,  # (2, d), or None
    pre,  # (d, samples, hidden); a replaces it
    curved,  # (d, samples, hidden): w phi'' H
    grad_jac,  # (samples, P): packed
    grad_offset,  # (samples, d): df
    sums,  # (tiles of samples, 2 d (hidden + 1)): gradients of w_out, b_in, b_out
    d, hidden, samples,
    activation: tl.constexpr, dot: tl.constexpr, S: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """A full posterior: H from the gradient of a row of the Jacobian."""
    i = tl.num_programs(1) - 1 - tl.program_id(1)
    b = tl.program_id(0) * S + tl.arange(0, S)
    there = b < samples
    dtype: tl.constexpr = grad_jac.dtype.element_ty
    grad_jac += row_start(i, d, True)
    df = tl.load(grad_offset + b.to(tl.int64) * d + i, mask=there, other=0.0)
    sums += tl.program_id(0).to(tl.int64) * (2 * d * (hidden + 1))
    start, end = parents_of(spans, i, d, C)
    for k0 in range(0, hidden, H):
        k = k0 + tl.arange(0, H)
        passed = tl.zeros((S, H), dtype=dtype)
        for j0 in range(start, end, C):
            j = j0 + tl.arange(0, C)
            dJ = rows(grad_jac, b, row_start(d, d, True), j, i, there)
            U = weights_tile(w_in, edges, i, k, j, d, hidden)
            passed = tl.dot(dJ, tl.trans(U), passed, input_precision=dot, out_dtype=dtype)
        finish_units(passed, df, pre, curved, sums, w_out, i, b, k, d, samples, hidden, activation)
    replace_by_slopes(pre, w_out, i, b, d, samples, hidden, activation, H)
    tl.store(sums + 2 * d * hidden + i, tl.sum(df))
    tl.store(sums + 2 * d * hidden + d + i, tl.zeros((), dtype=dtype))
