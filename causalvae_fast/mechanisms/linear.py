"""The linear mechanism."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalvae_fast import ops
from causalvae_fast.graph.masks import check_allowed
from causalvae_fast.mechanisms.base import Mechanism, Normalization


class LinearMechanism(Mechanism):
    """f(z) = (m * A) z + b, with a strictly lower triangular matrix A of coefficients and gates m.

    Its first-order expansion is itself, whatever the pivot, so that the KL of a linear SEM is exact.

    Args:
        d: number of nodes.
        allowed: boolean mask (d, d), (child, parent), of the coefficients that may differ from zero; every
            j < i by default. See `temporal_mask`.
        bias: learn b; otherwise it is zero, and the attribute `bias` None.
        init_std: standard deviation of the initial coefficients. At 0, the default, the prior starts as the
            isotropic one.

    Raises:
        TypeError: if d is no integer, or `allowed` no tensor.
        ValueError: if `allowed` has another shape or an edge on or above the diagonal.

    >>> mechanism = LinearMechanism(2)
    >>> _ = mechanism.weight.data.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    >>> mechanism(torch.tensor([[1.0, 5.0]]))
    tensor([[0., 3.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, d: int, allowed: Tensor | None = None, *, bias: bool = True, init_std: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("allowed", check_allowed(allowed, d))
        self.d = d
        self.weight = nn.Parameter(init_std * torch.randn(d, d))
        self.bias = nn.Parameter(torch.zeros(d)) if bias else None

    def coefficients(self, edges: Tensor | None = None) -> Tensor:
        """The matrix m * A, (d, d), (child, parent)."""
        coefficients = torch.where(self.allowed, self.weight, 0.0)
        return coefficients if edges is None else coefficients * edges

    def offset(self) -> Tensor:
        """b, (d,)."""
        return self.weight.new_zeros(self.d) if self.bias is None else self.bias

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        value = z @ self.coefficients(edges).mT
        return value if self.bias is None else value + self.bias

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        jac = self.coefficients(edges)
        return z @ jac.mT + self.offset(), jac.expand(z.shape[0], self.d, self.d)

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.coefficients(edges), self.offset()

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        jac, offset = self.coefficients(edges), self.offset()
        if normalization is not None:
            jac, offset = normalization.affine(jac, offset)
        return ops.ancestral_sample(noise, jac=jac, offset=offset, do_mask=do_mask, do_values=do_values)

    def extra_repr(self) -> str:
        return f"d={self.d}"
