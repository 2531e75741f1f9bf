"""How the KL divergence from a structural equation model is computed: where it is expanded, or by sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from causalvae_fast import ops
from causalvae_fast.mechanisms import Mechanism
from causalvae_fast.ops._checks import check_choice, check_integer, check_reduction
from causalvae_fast.ops._fused import reduce
from causalvae_fast.posterior import Posterior

Pivot = Literal["posterior_mean", "posterior_sample", "ancestral"]
Estimator = Literal["linearized", "monte_carlo"]
Closest = Literal["min", "logsumexp"]
Centre = Literal["mean", "pivot"]


@dataclass(frozen=True)
class Divergence:
    """The choices; `SEMPrior` says what they mean.

    Raises:
        TypeError: if `pivots` is no integer.
        ValueError: if one of them is another than it takes.
    """

    pivot: Pivot = "posterior_mean"
    estimator: Estimator = "linearized"
    pivots: int = 16
    closest: Closest = "logsumexp"
    centre: Centre = "pivot"

    def __post_init__(self) -> None:
        choices = {"pivot": Pivot, "estimator": Estimator, "closest": Closest, "centre": Centre}
        for name, literal in choices.items():
            check_choice(name, getattr(self, name), get_args(literal))
        check_integer("pivots", self.pivots, 1)

    @property
    def takes_sample(self) -> bool:
        """Whether the divergence depends on a posterior sample."""
        return self.estimator == "monte_carlo" or self.pivot == "posterior_sample"

    def __call__(
        self,
        mechanism: Mechanism,
        edges: Tensor | None,
        log_sigma: Tensor,  # (d,)
        posterior: Posterior,
        z: Tensor | None,  # (B, d), drawn here if one is needed
        reduction: str,
        validate_args: bool,
    ) -> Tensor:
        """KL(q_b || the model), (B,) or reduced."""
        loc, scale, scale_tril = posterior
        pivot = loc  # of the expansion
        if self.takes_sample:
            posterior.check(validate_args)
            pivot = z = posterior.rsample() if z is None else z
        if self.estimator == "linearized" and self.pivot != "ancestral":
            return mechanism.local_kl(
                pivot,
                log_sigma,
                loc,
                scale=scale,
                scale_tril=scale_tril,
                edges=edges,
                reduction=reduction,
                validate_args=validate_args,
            )
        check_reduction(reduction)
        if self.estimator == "monte_carlo":
            assert z is not None
            kl = posterior.log_prob(z) - log_density(z - mechanism(z, edges), log_sigma)
        else:
            posterior.check(validate_args)
            kl = self._from_local_gaussians(mechanism, edges, log_sigma, posterior)
        return reduce(kl, reduction)

    def _from_local_gaussians(
        self, mechanism: Mechanism, edges: Tensor | None, log_sigma: Tensor, posterior: Posterior
    ) -> Tensor:
        """(B,), by pivots that are samples of the model."""
        pivots = mechanism.solve(draw_noise(self.pivots, log_sigma), edges)
        jac, offset = mechanism.expand(pivots, edges)
        if self.centre == "pivot":
            offset = pivots - (jac @ pivots.unsqueeze(-1)).squeeze(-1)
        kl = ops.pivot_kl(
            jac.expand(self.pivots, -1, -1),
            offset.expand(self.pivots, -1),
            log_sigma,
            posterior.loc,
            scale=posterior.scale,
            scale_tril=posterior.triangle(),
            reduce=self.closest,
        )
        return kl[0] if isinstance(kl, tuple) else kl


def draw_noise(n: int, log_sigma: Tensor) -> Tensor:
    """Noise (n, d) of the SEM, n_i ~ N(0, sigma_i^2)."""
    return torch.exp(log_sigma) * torch.randn(n, len(log_sigma), dtype=log_sigma.dtype, device=log_sigma.device)


def log_density(noise: Tensor, log_sigma: Tensor) -> Tensor:
    """sum_i log N(n_i; 0, sigma_i^2), (B,), of noise (B, d)."""
    standardized = noise * torch.exp(-log_sigma)
    constant = 0.5 * log_sigma.shape[0] * math.log(2 * math.pi) + log_sigma.sum()
    return -0.5 * standardized.square().sum(-1) - constant
