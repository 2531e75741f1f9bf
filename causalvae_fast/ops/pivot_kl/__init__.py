"""KL divergences of Gaussian posteriors from the local Gaussians of several pivots."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import (
    check_choice,
    check_matrix,
    check_one_of,
    check_shape,
    check_tensors,
    remembered,
)
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.pivot_kl.autograd import pivot_kl_ops
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS


@in_float32
def pivot_kl(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    *,
    scale: Tensor | None = None,
    scale_tril: Tensor | None = None,
    reduce: str = "none",
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """KL(q_b || p_k) of B Gaussian posteriors from each of K local Gaussians of a structural equation model.

    Around pivot k the model is z = A_k z + b_k + n with noise n_i ~ N(0, sigma_i^2), which gives the Gaussian
    p_k = N(W_k^-1 b_k, W_k^-1 diag(sigma^2) W_k^-T), W_k = I - A_k (Theorem 2). With M_bk = W_k L_b and
    r_bk = W_k loc_b - b_k,

        KL_bk = 1/2 sum_i ((|M_bk,i|^2 + r_bk,i^2) / sigma_i^2 - 1) + sum_i log sigma_i - sum_i log L_b,ii.

    The residuals r_bk are computed as they stand, not through an expanded square: a posterior far from 0 whose
    residual is small keeps its digits. Samples do not influence each other: NaN in one gives NaN for that one.
    Differentiable in every tensor, twice and more, and in forward mode, through the reference formula. Under
    autocast it computes in float32.

    Args:
        jac: A_k, (K, d, d), (child, parent), K >= 1. Only what is below the diagonals is used.
        offset: b_k, (K, d).
        log_sigma: logarithm of the noise's standard deviations, (d,).
        loc: posterior means, (B, d).
        scale: posterior standard deviations, (B, d), above 0, for L = diag(scale).
        scale_tril: L, (B, d, d), with a positive diagonal. Only what is on and below the diagonal is used.
        reduce: "none"; "min", the closest pivot of each sample; or "logsumexp", -log(1/K sum_k exp(-KL_bk)), an
            upper bound of the divergence from the mixture of the K Gaussians with equal weights, at least the
            smallest KL and at most log K above it. With "min" and "logsumexp", the B K divergences are not stored.
        backend: "reference", "cpu" or "triton"; see `causalvae_fast.backends`.

    Returns:
        In nats, of the dtype of the inputs (float32 or float64): (B, K) for "none", (B,) for "logsumexp"; for
        "min", (B,) and the indices of the closest pivots, (B,) of int64. The gradient of "min" goes through those.

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others.
        ValueError: if a shape, device, reduction or backend does not fit, or if not exactly one of `scale` and
            `scale_tril` is given.

    >>> import torch
    >>> A = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> q = {"loc": torch.zeros(1, 2), "scale": torch.ones(1, 2)}
    >>> pivot_kl(A, torch.zeros(2, 2), torch.zeros(2), **q)
    tensor([[2., 0.]])
    >>> pivot_kl(A, torch.zeros(2, 2), torch.zeros(2), **q, reduce="min")
    (tensor([0.]), tensor([1]))
    """
    op, ordinary = _checked(jac, offset, log_sigma, loc, scale, scale_tril, reduce)
    factor = scale if scale is not None else scale_tril
    assert factor is not None
    return op(jac, offset, log_sigma, loc, factor, backend=backend, ordinary=ordinary)


@remembered
def _checked(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    scale: Tensor | None,
    scale_tril: Tensor | None,
    reduce: str,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_one_of(scale=scale, scale_tril=scale_tril)
    check_choice("reduce", reduce, REDUCTIONS)
    factor, name = (scale, "scale") if scale is not None else (scale_tril, "scale_tril")
    assert factor is not None
    check_tensors({"loc": loc, "jac": jac, "offset": offset, "log_sigma": log_sigma, name: factor})
    batch, d = check_matrix("loc", loc)
    if jac.dim() != 3 or jac.shape[0] < 1 or jac.shape[1:] != (d, d):
        raise ValueError(f"jac must have shape (K, {d}, {d}) with K >= 1, got {tuple(jac.shape)}")
    check_shape("offset", offset, (jac.shape[0], d))
    check_shape("log_sigma", log_sigma, (d,))
    check_shape(name, factor, (batch, d) if scale is not None else (batch, d, d))
    return pivot_kl_ops[reduce]
