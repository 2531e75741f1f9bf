"""The prior as a distribution of torch.distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    constraints,
    register_kl,
)

from causalvae_fast.ops._checks import may_read

if TYPE_CHECKING:
    from causalvae_fast.prior import SEMPrior


class SEMDistribution(Distribution):
    """p(z) = prod_i N(z_i; f_i(z_1 .. z_{i-1}), sigma_i^2), with event shape (d,) and no batch shape.

    `SEMPrior.distribution` makes it. It has the prior's parameters, not copies of them, and one draw of its gates.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012, as in torch.distributions
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, prior: SEMPrior, edges: Tensor | None) -> None:
        self.prior, self.edges = prior, edges
        super().__init__(event_shape=torch.Size([prior.d]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of value (..., d), (...); exact."""
        if value.shape[-1:] != self.event_shape:
            raise ValueError(f"value must have shape (..., {self.prior.d}), got {tuple(value.shape)}")
        flat = self.prior.log_prob(value.reshape(-1, self.prior.d), edges=self.edges)
        return flat.reshape(value.shape[:-1])

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()) -> Tensor:  # noqa: B008
        """(*sample_shape, d)."""
        return self.prior.rsample(sample_shape, edges=self.edges)


@register_kl(Normal, SEMDistribution)
@register_kl(Independent, SEMDistribution)
@register_kl(MultivariateNormal, SEMDistribution)
def _kl(q: Distribution, p: SEMDistribution) -> Tensor:
    return p.prior.kl(q, edges=p.edges)


def initial_log_sigma(given: object, d: int) -> Tensor:
    """log_sigma (d,), a copy of what `SEMPrior` is given, a number or a tensor.

    Raises:
        TypeError: if it is neither.
        ValueError: if it has another shape or a gradient, or is not finite.
    """
    if not isinstance(given, Tensor) or not given.is_floating_point():
        try:
            given = torch.as_tensor(given, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"log_sigma must be a number or a tensor ({d},), got {given!r}") from error
    if given.shape not in ((), (d,)):
        raise ValueError(f"log_sigma must be a number or have shape ({d},), got {tuple(given.shape)}")
    if given.requires_grad:
        raise ValueError(
            "log_sigma is copied, so that its gradient would be lost: pass log_sigma.detach() and "
            "learn_log_sigma=True, and learn prior.log_sigma"
        )
    if may_read(given) and not bool(given.isfinite().all()):
        raise ValueError(f"log_sigma must be finite, got {given.tolist()}")
    return given.expand(d).clone()
