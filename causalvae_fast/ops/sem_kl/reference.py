"""The definition of right for `sem_kl`: the equation in plain PyTorch, differentiable to any order."""

from collections.abc import Callable

import torch
from torch import Tensor

from causalvae_fast.ops._packed import unpack


def sem_kl_reference(
    jac: Tensor,  # (B, d, d) or (d, d), read below the diagonal only
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d), or scale_tril (B, d, d), read on and below the diagonal
) -> Tensor:  # (B,)
    """KL(N(loc, L L^T) || N(W^-1 b, W^-1 D W^-T)) of each sample, with W = I - A and D = diag(sigma^2).

    M = W L        r = W loc - b
    KL = 1/2 (|D^-1/2 M|_F^2 + |D^-1/2 r|^2 - d) + sum_i log sigma_i - sum_i log L_ii
    """
    A = jac.tril(-1)
    residual = loc - (A @ loc.unsqueeze(-1)).squeeze(-1) - offset
    if factor.dim() == 2:
        variance = factor.square()
        spread = variance + (A.square() @ variance.unsqueeze(-1)).squeeze(-1)  # |M_i|^2
        log_det = factor.log().sum(-1)
    else:
        L = factor.tril()
        spread = (L - A @ L).square().sum(-1)
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    mahalanobis = (torch.exp(-2 * log_sigma) * (spread + residual.square())).sum(-1)
    return 0.5 * (mahalanobis - log_sigma.shape[-1]) + log_sigma.sum() - log_det


def packed_sem_kl_reference(*, packed_jac: bool, packed_scale_tril: bool) -> Callable[..., Tensor]:
    """The same for a jac (B, d (d + 1) / 2) or (d (d + 1) / 2,), a scale_tril (B, d (d + 1) / 2), or both."""

    def reference(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
        d = loc.shape[-1]
        jac = unpack(jac, d) if packed_jac else jac
        factor = unpack(factor, d) if packed_scale_tril else factor
        return sem_kl_reference(jac, offset, log_sigma, loc, factor)

    return reference
