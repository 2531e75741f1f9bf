"""The definition of right for `ancestral_sample`: the recurrence in plain PyTorch, differentiable to any order."""

from collections.abc import Callable

import torch
from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS


def linear_reference(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d), read below the diagonal only
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
) -> Tensor:  # (N, d)
    """f_i(z) = sum_{j<i} A_ij z_j + b_i"""

    def equation(i: int, parents: Tensor) -> Tensor:
        return (jac[..., i, :i] * parents).sum(-1) + offset[i]

    return _recurrence(equation, noise, do_mask, do_values)


def quadratic_reference(
    noise: Tensor,  # (N, d)
    jac: Tensor,  # (N, d, d) or (d, d), read below the diagonal only
    quadratic: Tensor,  # like jac
    offset: Tensor,  # (d,)
    do_mask: Tensor,  # (N, d) or (d,), bool
    do_values: Tensor,  # (N, d) or (d,)
) -> Tensor:  # (N, d)
    """f_i(z) = sum_{j<i} (A_ij z_j + Q_ij z_j^2) + b_i"""

    def equation(i: int, parents: Tensor) -> Tensor:
        terms = jac[..., i, :i] * parents + quadratic[..., i, :i] * parents.square()
        return terms.sum(-1) + offset[i]

    return _recurrence(equation, noise, do_mask, do_values)


def mlp_reference(activation: str) -> Callable[..., Tensor]:
    """The masked-MLP mechanisms with one of the ACTIVATIONS."""
    phi = ACTIVATIONS[activation]

    def reference(
        noise: Tensor,  # (N, d)
        w_in: Tensor,  # (d, h, d): node, hidden unit, input; read where input < node only
        b_in: Tensor,  # (d, h)
        w_out: Tensor,  # (d, h)
        b_out: Tensor,  # (d,)
        edges: Tensor,  # (d, d), read below the diagonal only
        do_mask: Tensor,  # (N, d) or (d,), bool
        do_values: Tensor,  # (N, d) or (d,)
    ) -> Tensor:  # (N, d)
        """f_i(z) = w_i . phi(U_i (m_i * z) + c_i) + e_i"""

        def equation(i: int, parents: Tensor) -> Tensor:
            hidden, _ = phi((edges[i, :i] * parents) @ w_in[i, :, :i].mT + b_in[i])
            return hidden @ w_out[i] + b_out[i]

        return _recurrence(equation, noise, do_mask, do_values)

    return reference


def _recurrence(
    equation: Callable[[int, Tensor], Tensor],  # node i, its parents z_1 .. z_{i-1} (N, i) -> f_i (N,)
    noise: Tensor,
    do_mask: Tensor,
    do_values: Tensor,
) -> Tensor:
    """z_i = f_i(z_1 .. z_{i-1}) + noise_i, or do_values_i where do_mask_i."""
    do_mask, do_values = do_mask.expand_as(noise), do_values.expand_as(noise)
    z: list[Tensor] = []
    for i in range(noise.shape[1]):
        parents = torch.stack(z, -1) if z else noise[:, :0]
        z.append(torch.where(do_mask[:, i], do_values[:, i], equation(i, parents) + noise[:, i]))
    return torch.stack(z, -1)
