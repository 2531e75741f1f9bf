"""The definition of right for `propagate`: one triangular solve in plain PyTorch, differentiable to any order."""

import torch
from torch import Tensor


def propagate_reference(
    jac: Tensor,  # (B, d, d) or (d, d), read below the diagonal only
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
) -> tuple[Tensor, Tensor]:  # (B, d), or (d,) if neither has a batch; and, like jac, (B, d, d) or (d, d)
    """loc = W^-1 b and scale_tril = W^-1 diag(sigma), with W = I - A."""
    W = torch.eye(log_sigma.shape[0], dtype=jac.dtype, device=jac.device) - jac.tril(-1)
    sigma = log_sigma.exp().diag_embed().expand_as(W)
    loc = torch.linalg.solve_triangular(W, offset.unsqueeze(-1), upper=False, unitriangular=True)
    scale_tril = torch.linalg.solve_triangular(W, sigma, upper=False, unitriangular=True)
    return loc.squeeze(-1), scale_tril.tril()
