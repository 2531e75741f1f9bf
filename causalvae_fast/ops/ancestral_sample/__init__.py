"""Ancestral sampling from a structural equation model, with interventions."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import (
    check_both_or_neither,
    check_choice,
    check_hidden_weights,
    check_mask,
    check_matrix,
    check_shape,
    check_tensors,
    remembered,
)
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.ancestral_sample.autograd import linear_op, mlp_ops, quadratic_op


@in_float32
def ancestral_sample(
    noise: Tensor,
    *,
    jac: Tensor,
    quadratic: Tensor | None = None,
    offset: Tensor | None = None,
    do_mask: Tensor | None = None,
    do_values: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Samples of a structural equation model, node after node, for given noise.

    With A = `jac`, Q = `quadratic` and b = `offset`, node i has the value

        z_i = sum_{j<i} (A_ij z_j + Q_ij z_j^2) + b_i + noise_i

    and under the intervention do(z_i = v), where `do_mask` is true, z_i = v instead: its equation and its noise
    play no part, and get no gradient. With the noise z - f(z) of an observation it gives a counterfactual.

    Samples do not influence each other: NaN in one gives NaN for that one. Differentiable in every tensor but
    `do_mask`, twice and more, and in forward mode, through the reference formula. Under autocast it computes in
    float32.

    Args:
        noise: (N, d), with the standard deviations of the model already in it.
        jac: coefficients of the parents, (d, d), or (N, d, d) with those of each sample, (child, parent). Only
            what is below the diagonal is used.
        quadratic: coefficients of the squares of the parents, shaped as `jac` and used like it; zero by default,
            which makes the mechanism linear.
        offset: (d,), zero by default.
        do_mask: which equations are replaced, bool, (d,) for all samples or (N, d); none by default.
        do_values: the values that replace them, (d,) for all samples or (N, d). Those of other nodes are ignored.
        backend: "reference", "cpu" or "cuda"; see `causalvae_fast.backends`.

    Returns:
        z (N, d), of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others; if `do_mask` is not
            boolean.
        ValueError: if a shape, device or backend does not fit, or if only one of `do_mask` and `do_values` is
            given.

    >>> import torch
    >>> A = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> ancestral_sample(torch.tensor([[1.0, 0.5]]), jac=A)
    tensor([[1.0000, 2.5000]])
    >>> first = torch.tensor([True, False])
    >>> ancestral_sample(torch.tensor([[1.0, 0.5]]), jac=A, do_mask=first, do_values=torch.full((2,), 3.0))
    tensor([[3.0000, 6.5000]])
    """
    op, ordinary = _checked(noise, jac, quadratic, offset, do_mask, do_values)
    if offset is None:
        offset = noise.new_zeros(noise.shape[1])
    coefficients = (jac,) if quadratic is None else (jac, quadratic)
    return op(
        noise, *coefficients, offset, *_intervention(noise, do_mask, do_values), backend=backend, ordinary=ordinary
    )


@remembered
def _checked(
    noise: Tensor,
    jac: Tensor,
    quadratic: Tensor | None,
    offset: Tensor | None,
    do_mask: Tensor | None,
    do_values: Tensor | None,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_both_or_neither(do_mask=do_mask, do_values=do_values)
    given = {"noise": noise, "jac": jac, "quadratic": quadratic, "offset": offset, "do_values": do_values}
    required = ("noise", "jac")
    check_tensors({name: t for name, t in given.items() if t is not None or name in required})
    batch, d = check_matrix("noise", noise)
    check_shape("jac", jac, (batch, d, d), (d, d))
    if quadratic is not None:
        check_shape("quadratic", quadratic, tuple(jac.shape))
    if offset is not None:
        check_shape("offset", offset, (d,))
    _check_intervention(noise, do_mask, do_values)
    return linear_op if quadratic is None else quadratic_op


@in_float32
def mlp_ancestral_sample(
    noise: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor | None = None,
    *,
    activation: str = "tanh",
    do_mask: Tensor | None = None,
    do_values: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Samples of a structural equation model whose mechanisms are small networks, for given noise.

    Each node has a hidden layer of its own. With U = `w_in`, c = `b_in`, w = `w_out`, e = `b_out`, m = `edges` and
    phi = `activation`, node i has the value

        z_i = sum_k w_ik phi(sum_{j<i} U_ikj m_ij z_j + c_ik) + e_i + noise_i

    and under the intervention do(z_i = v), where `do_mask` is true, z_i = v instead: its equation and its noise
    play no part, and get no gradient. With the noise z - f(z) of an observation it gives a counterfactual.

    Samples do not influence each other: NaN in one gives NaN for that one. Differentiable in every tensor but
    `do_mask`, twice and more, and in forward mode, through the reference formula. Under autocast it computes in
    float32.

    Args:
        noise: (N, d), with the standard deviations of the model already in it.
        w_in: (d, h, d): node, hidden unit, input. Only inputs before the node are used.
        b_in: (d, h).
        w_out: (d, h).
        b_out: (d,).
        edges: (d, d), (child, parent): factors of the parents, as the gates in [0, 1] of `GumbelEdges`; ones by
            default. Only what is below the diagonal is used.
        activation: "tanh", "silu", "softplus", or "leaky_relu" with slope 0.01.
        do_mask: which equations are replaced, bool, (d,) for all samples or (N, d); none by default.
        do_values: the values that replace them, (d,) for all samples or (N, d). Those of other nodes are ignored.
        backend: "reference", "cpu" or "cuda"; see `causalvae_fast.backends`.

    Returns:
        z (N, d), of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others; if `do_mask` is not
            boolean.
        ValueError: if a shape, device, activation or backend does not fit, or if only one of `do_mask` and
            `do_values` is given.

    >>> import torch
    >>> w_in, b_in = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]]), torch.zeros(2, 1)
    >>> w_out, b_out = torch.ones(2, 1), torch.zeros(2)
    >>> mlp_ancestral_sample(torch.tensor([[1.0, 0.5]]), w_in, b_in, w_out, b_out, activation="leaky_relu")
    tensor([[1.0000, 2.5000]])
    """
    op, ordinary = _mlp_checked(noise, w_in, b_in, w_out, b_out, edges, activation, do_mask, do_values)
    if edges is None:
        edges = noise.new_ones(noise.shape[1], noise.shape[1])
    intervention = _intervention(noise, do_mask, do_values)
    return op(noise, w_in, b_in, w_out, b_out, edges, *intervention, backend=backend, ordinary=ordinary)


@remembered
def _mlp_checked(
    noise: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor | None,
    activation: str,
    do_mask: Tensor | None,
    do_values: Tensor | None,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_choice("activation", activation, mlp_ops)
    check_both_or_neither(do_mask=do_mask, do_values=do_values)
    given = {"noise": noise, "w_in": w_in, "b_in": b_in, "w_out": w_out, "b_out": b_out}
    optional = {"edges": edges, "do_values": do_values}
    check_tensors(given | {name: t for name, t in optional.items() if t is not None})
    _, d = check_matrix("noise", noise)
    hidden = check_hidden_weights(w_in, d)
    check_shape("b_in", b_in, (d, hidden))
    check_shape("w_out", w_out, (d, hidden))
    check_shape("b_out", b_out, (d,))
    if edges is not None:
        check_shape("edges", edges, (d, d))
    _check_intervention(noise, do_mask, do_values)
    return mlp_ops[activation]


def _check_intervention(noise: Tensor, do_mask: Tensor | None, do_values: Tensor | None) -> None:
    if do_mask is None or do_values is None:
        return
    check_mask("do_mask", do_mask, "noise", noise)
    check_shape("do_mask", do_mask, tuple(noise.shape), tuple(noise.shape[1:]))
    check_shape("do_values", do_values, tuple(noise.shape), tuple(noise.shape[1:]))


def _intervention(noise: Tensor, do_mask: Tensor | None, do_values: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two, or those of no intervention."""
    if do_mask is None or do_values is None:
        d = noise.shape[1]
        return torch.zeros(d, dtype=torch.bool, device=noise.device), noise.new_zeros(d)
    return do_mask, do_values
