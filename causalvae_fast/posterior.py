"""What a posterior is to the prior: a Gaussian for each sample, however the user has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from causalvae_fast import ops
from causalvae_fast.ops._checks import check_one_of, check_positive_factor, check_shape, check_tensors
from causalvae_fast.ops._packed import packed_size


class Posterior(NamedTuple):
    """Gaussians q_b = N(loc_b, L_b L_b^T): `scale` for L = diag(scale), or `scale_tril`; the other is None."""

    loc: Tensor  # (B, d)
    scale: Tensor | None  # (B, d)
    scale_tril: Tensor | None  # (B, d, d), read on and below the diagonal, or packed, (B, d (d + 1) / 2)

    def check(self, validate_args: bool = False) -> None:
        """Exactly one factor is given, and it fits `loc` (B, d).

        Raises:
            TypeError: if the dtypes differ.
            ValueError: if a shape or device does not fit, if not exactly one of `scale` and `scale_tril` is given,
                or, with `validate_args`, if a scale is not positive.
        """
        check_one_of(scale=self.scale, scale_tril=self.scale_tril)
        batch, d = self.loc.shape
        if self.scale is not None:
            check_tensors({"loc": self.loc, "scale": self.scale})
            check_shape("scale", self.scale, (batch, d))
        elif self.scale_tril is not None:
            check_tensors({"loc": self.loc, "scale_tril": self.scale_tril})
            check_shape("scale_tril", self.scale_tril, (batch, d, d), (batch, packed_size(d)))
        if validate_args:
            check_positive_factor(self.scale, self.scale_tril, d)

    def triangle(self) -> Tensor | None:
        """`scale_tril` (B, d, d) with zeros above the diagonal, None for diagonal posteriors."""
        if self.scale_tril is None:
            return None
        packed = self.scale_tril.dim() == 2
        return ops.unpack_tril(self.scale_tril) if packed else self.scale_tril.tril()

    def distribution(self) -> Distribution:
        """As a `torch.distributions.Distribution` with batch shape (B,) and event shape (d,)."""
        if self.scale is not None:
            return Independent(Normal(self.loc, self.scale), 1)
        return MultivariateNormal(self.loc, scale_tril=self.triangle())

    def joined(self, parts: int) -> Posterior:
        """Those of `parts` samples, one behind the other, as one Gaussian of parts * d variables, (B / parts,).

        Parts are independent of each other.
        """
        d = self.loc.shape[1]
        loc = self.loc.reshape(-1, parts * d)
        if self.scale is not None:
            return Posterior(loc, self.scale.reshape(-1, parts * d), None)
        L = self.triangle()
        assert L is not None
        blocks = torch.diag_embed(L.unflatten(0, (-1, parts)).movedim(1, -1))  # (B / parts, d, d, parts, parts)
        return Posterior(loc, None, blocks.permute(0, 3, 1, 4, 2).reshape(-1, parts * d, parts * d))

    def chosen(self, index: Tensor) -> Posterior:
        """Those of some samples, by their numbers."""
        scale, scale_tril = (None if t is None else t[index] for t in self[1:])
        return Posterior(self.loc[index], scale, scale_tril)

    def rsample(self, noise: Tensor | None = None) -> Tensor:
        """A sample (B, d) of each, differentiable in loc and the scale, from noise (B, d) ~ N(0, I)."""
        noise = torch.randn_like(self.loc) if noise is None else noise
        if self.scale is not None:
            return self.loc + self.scale * noise
        L = self.triangle()
        assert L is not None
        return self.loc + (L @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q_b(z_b), (B,), of z (B, d)."""
        L = self.triangle()
        if L is None:
            assert self.scale is not None
            standardized, diagonal = (z - self.loc) / self.scale, self.scale
        else:
            column = (z - self.loc).unsqueeze(-1)
            standardized = torch.linalg.solve_triangular(L, column, upper=False).squeeze(-1)
            diagonal = L.diagonal(dim1=-2, dim2=-1)
        constant = 0.5 * z.shape[-1] * math.log(2 * math.pi)
        return -0.5 * standardized.square().sum(-1) - diagonal.log().sum(-1) - constant


def concatenated(posteriors: Sequence[Posterior]) -> Posterior:
    """Posteriors of several batches, given alike, as those of one."""
    scale = [q.scale for q in posteriors if q.scale is not None]
    scale_tril = [q.scale_tril for q in posteriors if q.scale_tril is not None]
    loc = torch.cat([q.loc for q in posteriors])
    return Posterior(loc, torch.cat(scale) if scale else None, torch.cat(scale_tril) if scale_tril else None)


def parameters_of(q: Distribution) -> Posterior:
    """The parameters of a Gaussian posterior given as a distribution.

    Raises:
        TypeError: if q is no Normal, Independent(Normal, 1) or MultivariateNormal.
    """
    if isinstance(q, MultivariateNormal):
        return Posterior(q.loc, None, q.scale_tril)
    base = q.base_dist if isinstance(q, Independent) and q.reinterpreted_batch_ndims == 1 else q
    if isinstance(base, Normal):
        return Posterior(base.loc, base.scale, None)
    raise TypeError(
        f"q must be a Normal, an Independent(Normal, 1) or a MultivariateNormal, got {type(q).__name__}"
    )
