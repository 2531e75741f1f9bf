"""Batch normalisation of a mechanism's outputs, which fixes the scale of each function."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from causalvae_fast.mechanisms.base import Mechanism, Normalization
from causalvae_fast.mechanisms.temporal import TemporalMechanism


class OutputNorm(nn.Module):
    """The normalisation (f_i - mean_i) / sqrt(var_i + eps) of outputs (N, d), without a scale that is learned.

    In training, mean and variance are those of the batch, and running ones follow them; in evaluation, and for
    batches of fewer than 2 samples, they are the running ones. So in training a NaN in one sample reaches all of
    its batch, and stays in the running statistics, as with `torch.nn.BatchNorm1d`. Nodes without parents are
    constants, which have no scale: they are left as they are.

    Inside of torch.utils.checkpoint, which computes the forward pass twice, a batch counts twice in the running
    statistics.

    Args:
        has_parents: boolean (d,).
        momentum: weight of a batch in the running statistics, in (0, 1].
        eps: added to the variance, above 0.
        like: a tensor that gives dtype and device of the statistics; by default, the default dtype and the device
            of `has_parents`.

    Raises:
        ValueError: if `momentum` or `eps` is outside its range.
    """

    has_parents: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, has_parents: Tensor, momentum: float = 0.1, eps: float = 1e-5, like: Tensor | None = None
    ) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        self.momentum, self.eps = momentum, eps
        like = torch.empty((), device=has_parents.device) if like is None else like
        self.register_buffer("has_parents", has_parents.to(like.device, copy=True))
        self.register_buffer("running_mean", like.new_zeros(len(has_parents)))
        self.register_buffer("running_var", like.new_ones(len(has_parents)))

    def forward(self, value: Tensor) -> Normalization:
        """What is to be done with the outputs `value` (N, d), in training that of their own statistics."""
        if not self.training or value.shape[0] < 2:
            return self.running()
        variance, mean = torch.var_mean(value, dim=0, correction=0)
        with torch.no_grad():
            unbiased = variance * (value.shape[0] / (value.shape[0] - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        return self._normalization(mean, variance)

    def running(self) -> Normalization:
        """That of the running statistics."""
        return self._normalization(self.running_mean, self.running_var)

    def _normalization(self, mean: Tensor, variance: Tensor) -> Normalization:
        scale = torch.rsqrt(variance + self.eps)
        return Normalization(torch.where(self.has_parents, mean, 0.0), torch.where(self.has_parents, scale, 1.0))


class NormalizedMechanism(Mechanism):
    """f_i(z) = (g_i(z) - mean_i) / sqrt(var_i + eps): any mechanism g with normalised outputs.

    With learned functions, the scale of each latent is identifiable only if that of its function is fixed, which
    this does (Theorem 7). The Jacobian is that of g, divided by the same root; the statistics of a batch count as
    constants in it, but have gradients.

    Samples and counterfactuals (`solve`, `abduct`) need one and the same f, and take the running statistics in
    training too. In evaluation, where gates are 0 or 1, a node that has lost all of its edges keeps the constant
    (g_i - mean_i) / sqrt(var_i + eps) with the statistics of its relaxed gates.

    A temporal mechanism is normalised inside, TemporalMechanism(NormalizedMechanism(...), ...), so that all time
    steps have the same statistics.

    Args:
        mechanism: g. The statistics get its dtype and device.
        momentum, eps: see `OutputNorm`.

    Raises:
        TypeError: if `mechanism` is none.
        ValueError: if it is temporal, or if `momentum` or `eps` is outside its range.
    """

    def __init__(self, mechanism: Mechanism, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if not isinstance(mechanism, Mechanism):
            raise TypeError(f"mechanism must be a Mechanism, got {type(mechanism).__name__}")
        if isinstance(mechanism, TemporalMechanism):
            raise ValueError(
                "a temporal mechanism is normalised inside, so that its time steps share their statistics: "
                "TemporalMechanism(NormalizedMechanism(g), frames, latents)"
            )
        self.mechanism = mechanism
        self.d = mechanism.d
        self.register_buffer("allowed", mechanism.allowed.clone())
        every_node = torch.ones(mechanism.d, dtype=torch.bool, device=mechanism.allowed.device)
        floating = (t for t in chain(mechanism.parameters(), mechanism.buffers()) if t.is_floating_point())
        self.norm = OutputNorm(mechanism.descendants(every_node), momentum, eps, next(floating, None))

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        value = self.mechanism(z, edges)
        return self.norm(value)(value)

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, jac = self.mechanism.linearize(z, edges)
        jac, value = self.norm(value).affine(jac, value)
        return value, jac

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        jac, offset = self.mechanism.expand(pivot, edges)
        return self._at(pivot, edges).affine(jac, offset)

    def local_kl(
        self,
        pivot: Tensor,
        log_sigma: Tensor,
        loc: Tensor,
        *,
        edges: Tensor | None = None,
        normalization: Normalization | None = None,
        **posterior: Any,
    ) -> Tensor:
        both = _after(self._at(pivot, edges), normalization)
        return self.mechanism.local_kl(pivot, log_sigma, loc, edges=edges, normalization=both, **posterior)

    def _at(self, pivot: Tensor, edges: Tensor | None) -> Normalization:
        """In training, that of the statistics of the pivots."""
        return self.norm(self.mechanism(pivot, edges)) if self.training else self.norm.running()

    def abduct(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        return z - self.norm.running()(self.mechanism(z, edges))

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        both = _after(self.norm.running(), normalization)
        return self.mechanism.solve(noise, edges, do_mask, do_values, normalization=both)

    def influence(self, edges: Tensor | None = None) -> Tensor:
        return self.mechanism.influence(edges)

    def descendants(self, nodes: Tensor, edges: Tensor | None = None) -> Tensor:
        return self.mechanism.descendants(nodes, edges)


def _after(own: Normalization, other: Normalization | None) -> Normalization:
    """One normalisation for both, `own` first: ((g - m) s - mean) scale = (g - (m + mean / s)) s scale."""
    if other is None:
        return own
    return Normalization(own.mean + other.mean / own.scale, own.scale * other.scale)
