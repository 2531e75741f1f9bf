"""The definition of right for `mlp_sem_kl`: the equations in plain PyTorch, differentiable to any order."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._packed import unpack
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference


def mlp_sem_kl_reference(activation: str, *, packed_scale_tril: bool = False) -> Callable[..., Tensor]:
    """The KL for networks with one of the ACTIVATIONS, and a scale_tril that is packed or not."""
    phi = ACTIVATIONS[activation]

    def reference(
        pivot: Tensor,  # (B, d): z
        w_in: Tensor,  # (d, h, d): node, hidden unit, input; read where input < node only
        b_in: Tensor,  # (d, h)
        w_out: Tensor,  # (d, h)
        b_out: Tensor,  # (d,)
        edges: Tensor,  # (d, d), (child, parent), read below the diagonal only
        log_sigma: Tensor,  # (d,)
        loc: Tensor,  # (B, d)
        factor: Tensor,  # scale (B, d), or scale_tril (B, d, d), or packed
    ) -> Tensor:  # (B,)
        """p_ik = sum_j U_ikj m_ij z_j + c_ik    f_i = w_i . phi(p_i) + e_i
        J_ij = m_ij sum_k w_ik phi'(p_ik) U_ikj

        The model around z is f + J (. - z): with both measured from z, its Jacobian is J, its offset f - z.
        """
        d, hidden, _ = w_in.shape
        weights = edges.tril(-1).unsqueeze(1) * w_in.transpose(0, 1).tril(-1).transpose(0, 1)
        pre = (pivot @ weights.flatten(0, 1).mT).unflatten(-1, (d, hidden)) + b_in
        value, slope = phi(pre)
        jac = ((w_out * slope).unsqueeze(-2) @ weights).squeeze(-2)
        offset = (w_out * value).sum(-1) + b_out - pivot
        factor = unpack(factor, d) if packed_scale_tril else factor
        return sem_kl_reference(jac, offset, log_sigma, loc - pivot, factor)

    return reference
