"""What a mechanism is: the functions f_i of z_i = f_i(z_1 .. z_{i-1}) + n_i, all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from causalvae_fast import ops
from causalvae_fast.graph.interventions import descendants
from causalvae_fast.ops._checks import check_integer


class Normalization(NamedTuple):
    """What is done with the outputs f_i(z) of a mechanism: (f_i(z) - mean_i) * scale_i."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,), above 0

    def __call__(self, value: Tensor) -> Tensor:
        """Normalised outputs (N, d) of outputs (N, d)."""
        return (value - self.mean) * self.scale

    def affine(self, matrix: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """matrix (..., d, m) and offset (..., d) of the normalised outputs matrix x + offset."""
        return matrix * self.scale.unsqueeze(-1), self(offset)

    def of(self, nodes: slice) -> Normalization:
        """That of some of the nodes."""
        return Normalization(self.mean[nodes], self.scale[nodes])


class Mechanism(nn.Module, ABC):
    """f: (N, d) -> (N, d), whose output i depends on the inputs j < i alone.

    `edges`, shaped as `allowed`, (child, parent), are gates in [0, 1] that multiply the influence of each parent
    on each child; None stands for ones. A subclass needs `forward` and `linearize`; `solve`, `expand` and
    `local_kl` can be overridden by something quicker.
    """

    d: int
    allowed: Tensor  # (d, d), (child, parent): true where the child's function may depend on the parent

    @abstractmethod
    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        """f(z), (N, d), for z (N, d)."""

    @abstractmethod
    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(z), (N, d), and its Jacobian at z, (N, d, d), (child, parent), strictly lower triangular."""

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """First-order expansion around `pivot` (N, d): f(z) ~ jac z + offset.

        Returns:
            jac (N, d, d), or (d, d) where it is the same everywhere, and offset = f(pivot) - jac pivot, (N, d)
            or (d,).
        """
        value, jac = self.linearize(pivot, edges)
        return jac, value - (jac @ pivot.unsqueeze(-1)).squeeze(-1)

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
        """KL(q_b || p_b), (B,) or reduced, of Gaussians q_b from the model expanded around pivot b.

        Args:
            pivot: (B, d).
            log_sigma: logarithm of the noise's standard deviations, (d,).
            loc, scale, scale_tril, reduction, validate_args: the posteriors; see `ops.sem_kl`.
            edges: gates.
            normalization: if given, its outputs stand in the place of f's.
        """
        jac, offset = self.expand(pivot, edges)
        if normalization is not None:
            jac, offset = normalization.affine(jac, offset)
        return ops.sem_kl(
            jac,
            offset,
            log_sigma,
            loc,
            scale=scale,
            scale_tril=scale_tril,
            reduction=reduction,
            validate_args=validate_args,
        )

    def abduct(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        """The noise n = z - f(z), (N, d), from which `solve` makes z (N, d) again."""
        return z - self(z, edges)

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        """z (N, d) with z = f(z) + noise, for noise (N, d): ancestral sampling.

        Where `do_mask`, (d,) or (N, d), is true, the node's equation is replaced by its `do_values`, of the same
        two shapes. With `normalization`, its outputs stand in the place of f's. This general form evaluates f d
        times.
        """
        z = torch.zeros_like(noise)
        for node in range(self.d):
            value = self(z, edges)
            value = (value if normalization is None else normalization(value)) + noise
            if do_mask is not None:
                assert do_values is not None
                value = torch.where(do_mask, do_values, value)
            z = torch.cat([z[:, :node], value[:, node : node + 1], z[:, node + 1 :]], dim=1)
        return z

    def finish(
        self,
        known: Tensor,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        """The last k nodes (N, k), given those before them, `known` (N, d - k), and their own noise (N, k).

        `do_mask`, `do_values` and `normalization` are for the last k nodes, shaped as in `solve`.
        """
        k, before = noise.shape[1], known.new_ones(known.shape[1])
        if do_mask is None or do_values is None:
            do_mask, do_values = torch.zeros(k, dtype=torch.bool, device=noise.device), torch.zeros_like(noise)
        mask = torch.cat([before.bool().expand(*do_mask.shape[:-1], -1), do_mask], dim=-1)
        values = torch.cat([known, do_values.expand_as(noise)], dim=-1)
        if normalization is not None:
            mean, scale = normalization
            normalization = Normalization(torch.cat([0 * before, mean]), torch.cat([before, scale]))
        padded = torch.cat([torch.zeros_like(known), noise], dim=-1)
        return self.solve(padded, edges, mask, values, normalization=normalization)[:, -k:]

    def extrapolate(self, z: Tensor, steps: int, latents: int, edges: Tensor | None = None) -> Tensor:
        """The time steps after z, (N, steps * latents), without noise: shift the window, apply f, repeat.

        The d nodes are a window of time steps of `latents` nodes each, the last of which is predicted.

        Args:
            z: the time steps so far, (N, T * latents) with T * latents >= d - latents. Only the last ones count.
            steps: time steps to predict, at least 1.
            latents: nodes of a time step.
            edges: gates.

        Raises:
            TypeError: if `latents` or `steps` is no integer.
            ValueError: if `latents`, `steps` or the shape of z does not fit.
        """
        check_integer("latents", latents, 1)
        check_integer("steps", steps, 1)
        if self.d % latents:
            raise ValueError(f"latents must divide the {self.d} nodes of the window, got {latents}")
        past = self.d - latents
        if z.dim() != 2 or z.shape[1] < past or z.shape[1] % latents:
            raise ValueError(
                f"z must have shape (N, T * {latents}) with T >= {past // latents}, got {tuple(z.shape)}"
            )
        window, found = z[:, z.shape[1] - past :], []
        for _ in range(steps):
            found.append(self.finish(window, z.new_zeros(z.shape[0], latents), edges))
            window = torch.cat([window, found[-1]], dim=1)[:, latents:]
        return torch.cat(found, dim=1)

    def influence(self, edges: Tensor | None = None) -> Tensor:
        """Boolean (d, d), (child, parent): true where the parent acts on the child directly."""
        return self.allowed if edges is None else self.allowed & (edges != 0)

    def descendants(self, nodes: Tensor, edges: Tensor | None = None) -> Tensor:
        """Mask (d,) of the nodes that are reached from `nodes` (d,), a mask, by one edge or more."""
        return descendants(self.influence(edges), nodes)
