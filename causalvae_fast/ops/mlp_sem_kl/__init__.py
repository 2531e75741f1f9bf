"""KL divergence of Gaussian posteriors from a structural equation model of small networks, linearised."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import (
    check_choice,
    check_hidden_weights,
    check_matrix,
    check_one_of,
    check_positive_factor,
    check_reduction,
    check_shape,
    check_tensors,
    remembered,
)
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._packed import packed_size
from causalvae_fast.ops.mlp_sem_kl.autograd import mlp_sem_kl_ops


@in_float32
def mlp_sem_kl(
    pivot: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    *,
    scale: Tensor | None = None,
    scale_tril: Tensor | None = None,
    activation: str = "tanh",
    reduction: str = "none",
    validate_args: bool = False,
    backend: str | None = None,
) -> Tensor:
    """KL(q || p) of Gaussian posteriors q = N(loc, L L^T) from a SEM of small networks, linearised at `pivot`.

    Each node has a hidden layer of its own. With z = `pivot`, U = `w_in`, c = `b_in`, w = `w_out`, e = `b_out`,
    m = `edges` and phi = `activation`,

        pre_ik = sum_{j<i} U_ikj m_ij z_j + c_ik        f_i = sum_k w_ik phi(pre_ik) + e_i
        J_ij = m_ij sum_k w_ik phi'(pre_ik) U_ikj

    and the KL is that of `sem_kl` with jac = J and offset = f - J z, whose Jacobian is never stored: with
    M = (I - J) L and r = loc - f - J (loc - z),

        KL = 1/2 sum_i ((|M_i|^2 + r_i^2) / sigma_i^2 - 1) + sum_i log sigma_i - sum_i log L_ii.

    With a diagonal posterior, the memory beyond inputs and outputs grows with B d. Samples do not influence each
    other: NaN in one gives NaN for that one. Differentiable in every tensor, twice and more, and in forward mode,
    through the reference formula. Under autocast it computes in float32.

    Args:
        pivot: where the networks are expanded, (B, d); `loc`, or a sample of q, usually.
        w_in: (d, h, d): node, hidden unit, input. Only inputs before the node are used.
        b_in: (d, h).
        w_out: (d, h).
        b_out: (d,).
        edges: (d, d), (child, parent): factors of the parents, as the gates in [0, 1] of `GumbelEdges`. Only what
            is below the diagonal is used. Where their gradient is not needed, kernels skip blocks of edges that
            are all 0, through which a NaN of `w_in` or `pivot` then does not pass.
        log_sigma: logarithm of the noise's standard deviations, (d,).
        loc: posterior means, (B, d).
        scale: posterior standard deviations, (B, d), above 0, for L = diag(scale).
        scale_tril: L, (B, d, d), with a positive diagonal; or packed, (B, d (d + 1) / 2). See `sem_kl`.
        activation: "tanh", "silu", "softplus", or "leaky_relu" with slope 0.01, whose second derivative is 0: the
            KL then does not see how J changes with the pivot and the weights of the hidden units.
        reduction: "none", "mean" or "sum" over the batch. With "mean" and "sum", value and gradients are computed
            in one pass; with "none", the gradients are computed in the backward pass.
        validate_args: check that `scale`, or the diagonal of `scale_tril`, is positive, which reads it once more.
            Otherwise one that is not gives NaN or inf for that sample.
        backend: "reference", "cpu" or "triton"; see `causalvae_fast.backends`.

    Returns:
        (B,), or a scalar for "mean" and "sum", in nats, of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others.
        ValueError: if a shape, device, activation, reduction or backend does not fit, if not exactly one of
            `scale` and `scale_tril` is given, or, with `validate_args`, if a scale is not positive.

    >>> import torch
    >>> w_in, w_out = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]]), torch.ones(2, 1)
    >>> edges, zeros, ones = torch.ones(2, 2), torch.zeros(2), torch.ones(1, 2)
    >>> loc = torch.zeros(1, 2)
    >>> kl = mlp_sem_kl(loc, w_in, torch.zeros(2, 1), w_out, zeros, edges, zeros, loc, scale=ones)
    >>> kl  # J_10 = 2: that of sem_kl with this coefficient
    tensor([2.])
    """
    op, ordinary = _checked(
        pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, scale, scale_tril, activation, reduction
    )
    factor = scale if scale is not None else scale_tril
    assert factor is not None
    if validate_args:
        check_positive_factor(scale, scale_tril, loc.shape[1])
    inputs = pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor
    return op.reduce(inputs, reduction, backend, ordinary)


@remembered
def _checked(
    pivot: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    edges: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    scale: Tensor | None,
    scale_tril: Tensor | None,
    activation: str,
    reduction: str,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_one_of(scale=scale, scale_tril=scale_tril)
    check_reduction(reduction)
    check_choice("activation", activation, ACTIVATIONS)
    factor, name = (scale, "scale") if scale is not None else (scale_tril, "scale_tril")
    assert factor is not None
    parameters = {
        "w_in": w_in,
        "b_in": b_in,
        "w_out": w_out,
        "b_out": b_out,
        "edges": edges,
        "log_sigma": log_sigma,
    }
    check_tensors({"loc": loc, "pivot": pivot} | parameters | {name: factor})
    batch, d = check_matrix("loc", loc)
    check_shape("pivot", pivot, (batch, d))
    hidden = check_hidden_weights(w_in, d)
    check_shape("b_in", b_in, (d, hidden))
    check_shape("w_out", w_out, (d, hidden))
    check_shape("b_out", b_out, (d,))
    check_shape("edges", edges, (d, d))
    check_shape("log_sigma", log_sigma, (d,))
    if scale is not None:
        check_shape(name, factor, (batch, d))
    else:
        check_shape(name, factor, (batch, d, d), (batch, packed_size(d)))
    return mlp_sem_kl_ops[activation, scale_tril is not None and scale_tril.dim() == 2]
