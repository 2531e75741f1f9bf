"""The definition of right for `gaussian_kl`: the equation in plain PyTorch, differentiable to any order."""

import torch
from torch import Tensor


def gaussian_kl_of_factors(
    loc_q: Tensor,  # (B, d)
    loc_p: Tensor,  # (B, d) or (d,)
    scale_tril_q: Tensor,  # (B, d, d), read on and below the diagonal only
    scale_tril_p: Tensor,  # (B, d, d) or (d, d), the same
) -> Tensor:  # (B,)
    """KL(N(loc_q, L_q L_q^T) || N(loc_p, L_p L_p^T)) of each sample.

    N = L_p^-1 L_q        u = L_p^-1 (loc_q - loc_p)
    KL = 1/2 (|N|_F^2 + |u|^2 - d) + sum_i log L_p,ii - sum_i log L_q,ii
    """
    difference = (loc_q - loc_p).unsqueeze(-1)
    right = torch.cat((scale_tril_q.tril(), difference), -1)
    whitened = torch.linalg.solve_triangular(scale_tril_p.tril(), right, upper=False)
    log_det_q, log_det_p = (L.diagonal(dim1=-2, dim2=-1).log().sum(-1) for L in (scale_tril_q, scale_tril_p))
    return 0.5 * (whitened.square().sum((-2, -1)) - loc_q.shape[-1]) + log_det_p - log_det_q


def cholesky(covariance_matrix: Tensor) -> Tensor:  # (..., d, d) -> (..., d, d)
    """The Cholesky factor, NaN for a matrix that is not positive definite. Reads the lower triangle only; the
    gradient is symmetric, as that of torch.linalg.cholesky.
    """
    factor, info = torch.linalg.cholesky_ex(covariance_matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)
