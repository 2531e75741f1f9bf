"""The definition of right for `pivot_kl`: the equations in plain PyTorch, differentiable to any order."""

import math

import torch
from torch import Tensor


def pivot_kl_reference(
    jac: Tensor,  # (K, d, d), read below the diagonal only
    offset: Tensor,  # (K, d)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d), or scale_tril (B, d, d), read on and below the diagonal
) -> Tensor:  # (B, K)
    """KL(N(loc_b, L_b L_b^T) || N(W_k^-1 b_k, W_k^-1 D W_k^-T)), with W_k = I - A_k and D = diag(sigma^2).

    M_bk = W_k L_b        r_bk = W_k loc_b - b_k
    KL_bk = 1/2 (|D^-1/2 M_bk|_F^2 + |D^-1/2 r_bk|^2 - d) + sum_i log sigma_i - sum_i log L_b,ii
    """
    A = jac.tril(-1)
    residual = loc.unsqueeze(1) - torch.einsum("kij,bj->bki", A, loc) - offset
    if factor.dim() == 2:
        variance = factor.square()
        spread = variance.unsqueeze(1) + torch.einsum("kij,bj->bki", A.square(), variance)  # |M_i|^2
        log_det = factor.log().sum(-1)
    else:
        L = factor.tril()
        spread = (L.unsqueeze(1) - A @ L.unsqueeze(1)).square().sum(-1)
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    mahalanobis = (torch.exp(-2 * log_sigma) * (spread + residual.square())).sum(-1)
    return 0.5 * (mahalanobis - log_sigma.shape[-1]) + log_sigma.sum() - log_det.unsqueeze(1)


def pivot_kl_min_reference(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor]:  # (B,), and (B,) int64
    """The smallest of the K divergences of each sample, and which it is. The gradient goes through that one."""
    kl = pivot_kl_reference(jac, offset, log_sigma, loc, factor)
    index = kl.detach().argmin(1)
    return kl.gather(1, index.unsqueeze(1)).squeeze(1), index


def pivot_kl_logsumexp_reference(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> Tensor:  # (B,)
    """-log (1/K sum_k exp(-KL_bk)), at least KL(q_b || 1/K sum_k p_k)."""
    kl = pivot_kl_reference(jac, offset, log_sigma, loc, factor)
    return math.log(len(jac)) - torch.logsumexp(-kl, 1)
