"""The masked-MLP mechanism: a small network for each node."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalvae_fast import ops
from causalvae_fast.graph.masks import check_allowed
from causalvae_fast.mechanisms.base import Mechanism, Normalization
from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._checks import check_choice, check_integer


class MLPMechanism(Mechanism):
    """f_i(z) = w_i . phi(U_i (m_i * z) + c_i) + e_i: one hidden layer for each node, all nodes in one batch.

    The gates m_ij multiply the inputs, so that a node with closed gates is a constant. The Jacobian is analytic,

        J_ij = m_ij sum_k w_ik phi'(p_ik) U_ikj,        p_i = U_i (m_i * z) + c_i.

    Args:
        d: number of nodes.
        hidden: units h of each node's layer, at least 1.
        activation: "tanh", "silu", "softplus", or "leaky_relu" with slope 0.01. The KL divergence of a linearised
            SEM has the gradient of J in its own, which is phi''. That of leaky ReLU is zero wherever it exists,
            so the gradient of the divergence does not see how J changes with the pivot, the biases c and, through
            p, the weights U: prefer one of the others unless that is understood.
        allowed: boolean mask (d, d), (child, parent), of the possible edges; every j < i by default.
        init_std: standard deviation of f before training, roughly. Small, so that the prior starts close to the
            isotropic one; not 0, or the gates have no gradient at first.

    Raises:
        TypeError: if d or `hidden` is no integer, or `allowed` no tensor.
        ValueError: if `hidden` is below 1, `activation` is another, or `allowed` has another shape or an edge on
            or above the diagonal.

    >>> mechanism = MLPMechanism(3, hidden=8)
    >>> value, jac = mechanism.linearize(torch.zeros(5, 3))
    >>> jac.shape
    torch.Size([5, 3, 3])
    """

    def __init__(
        self,
        d: int,
        hidden: int = 32,
        activation: str = "tanh",
        allowed: Tensor | None = None,
        *,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        check_integer("hidden", hidden, 1)
        check_choice("activation", activation, ACTIVATIONS)
        self.register_buffer("allowed", check_allowed(allowed, d))
        self.d, self.hidden, self.activation = d, hidden, activation
        parents = self.allowed.sum(-1).clamp_min(1).to(torch.get_default_dtype())
        self.w_in = nn.Parameter(torch.randn(d, hidden, d) / parents.sqrt()[:, None, None])  # (node, unit, input)
        self.b_in = nn.Parameter(torch.randn(d, hidden))
        self.w_out = nn.Parameter(init_std * hidden**-0.5 * torch.randn(d, hidden))
        self.b_out = nn.Parameter(torch.zeros(d))

    def gates(self, edges: Tensor | None = None) -> Tensor:
        """m, (d, d), (child, parent): 0 where no edge is allowed."""
        if edges is None:
            return self.allowed.to(self.w_in.dtype)
        return torch.where(self.allowed, edges, 0.0)

    def _pre_activations(self, z: Tensor, edges: Tensor | None) -> tuple[Tensor, Tensor]:
        """p (N, d, h) and the weights U_ikj m_ij (d, h, d)."""
        weights = self.w_in * self.gates(edges).unsqueeze(1)
        return torch.unflatten(z @ weights.flatten(0, 1).mT, -1, (self.d, self.hidden)) + self.b_in, weights

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        value, _ = ACTIVATIONS[self.activation](self._pre_activations(z, edges)[0])
        return (value * self.w_out).sum(-1) + self.b_out

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, slopes, _, weights = self._terms(z, edges)
        return value, _jacobian(slopes, weights)

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, slopes, pre, weights = self._terms(pivot, edges)
        # J z0 = sum_k w_k phi'(p_k) (p_k - c_k), without the product with J.
        return _jacobian(slopes, weights), value - (slopes * (pre - self.b_in)).sum(-1)

    def _terms(self, z: Tensor, edges: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f(z) (N, d), w_ik phi'(p_ik) (N, d, h), p (N, d, h) and the weights U_ikj m_ij (d, h, d)."""
        pre, weights = self._pre_activations(z, edges)
        value, slope = ACTIVATIONS[self.activation](pre)
        return (value * self.w_out).sum(-1) + self.b_out, slope * self.w_out, pre, weights

    def local_kl(
        self,
        pivot: Tensor,
        log_sigma: Tensor,
        loc: Tensor,
        *,
        scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
        edges: Tensor | None = None,
        reduction: str = "none",
        validate_args: bool = False,
        normalization: Normalization | None = None,
    ) -> Tensor:
        """See `Mechanism.local_kl`. The Jacobian is not stored (`ops.mlp_sem_kl`)."""
        w_out, b_out = self._output_layer(normalization)
        return ops.mlp_sem_kl(
            pivot,
            self.w_in,
            self.b_in,
            w_out,
            b_out,
            self.gates(edges),
            log_sigma,
            loc,
            scale=scale,
            scale_tril=scale_tril,
            activation=self.activation,
            reduction=reduction,
            validate_args=validate_args,
        )

    def _output_layer(self, normalization: Normalization | None) -> tuple[Tensor, Tensor]:
        """w (d, h) and e (d,), with the normalisation in them."""
        if normalization is None:
            return self.w_out, self.b_out
        return normalization.affine(self.w_out, self.b_out)

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        w_out, b_out = self._output_layer(normalization)
        return ops.mlp_ancestral_sample(
            noise,
            self.w_in,
            self.b_in,
            w_out,
            b_out,
            self.gates(edges),
            activation=self.activation,
            do_mask=do_mask,
            do_values=do_values,
        )

    def extra_repr(self) -> str:
        return f"d={self.d}, hidden={self.hidden}, activation={self.activation!r}"


def _jacobian(slopes: Tensor, weights: Tensor) -> Tensor:
    """J (N, d, d), by a product for each node."""
    return torch.bmm(slopes.transpose(0, 1), weights).transpose(0, 1)
