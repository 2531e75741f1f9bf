"""What a mechanism is: the functions f_i of z_i = f_i(z_1 .. z_{i-1}) + n_i, all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Mechanism(nn.Module, ABC):
    """f: (N, d) -> (N, d), whose output i depends on the inputs j < i alone.

    `edges` (d, d), (child, parent), are gates in [0, 1] that multiply the influence of each parent on each
    child; None stands for ones.
    """

    d: int
    allowed: Tensor  # (d, d), (child, parent): true where the child's function may depend on the parent

    @abstractmethod
    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        """f(z), (N, d), for z (N, d)."""

    @abstractmethod
    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(z), (N, d), and its Jacobian at z, (N, d, d), (child, parent), strictly lower triangular."""

    @abstractmethod
    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
    ) -> Tensor:
        """z (N, d) with z = f(z) + noise, for noise (N, d): ancestral sampling.

        Where `do_mask` (d,) is true, the node's equation is replaced by its `do_values` (N, d).
        """

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """First-order expansion around `pivot` (N, d): f(z) ~ jac z + offset.

        Returns:
            jac (N, d, d), or (d, d) where it is the same everywhere, and offset = f(pivot) - jac pivot, (N, d)
            or (d,).
        """
        value, jac = self.linearize(pivot, edges)
        return jac, value - (jac @ pivot.unsqueeze(-1)).squeeze(-1)
