"""How far the aggregate posterior is from the prior."""

from __future__ import annotations

import torch

from causalvae_fast.metrics import classifier_two_sample, sliced_wasserstein
from causalvae_fast.posterior import Posterior
from causalvae_fast.prior import SEMPrior


@torch.no_grad()
def prior_distance(
    prior: SEMPrior, posterior: Posterior, generator: torch.Generator, seed: int = 0
) -> dict[str, float]:
    """Between samples of the prior and of N >= 4 posteriors, one of each.

    Returns:
        sliced_wasserstein: the sliced Wasserstein distance.
        sliced_wasserstein_of_chance: the same between two sets of the prior.
        classifier: the held-out accuracy of a classifier between the two; 1/2 where it cannot tell them apart.
    """
    noise = torch.randn(3, *posterior.loc.shape, generator=generator)
    aggregate = posterior.rsample(noise[0])
    edges = prior.sample_edges()
    samples, again = (prior.mechanism.solve(n * prior.log_sigma.exp(), edges) for n in noise[1:])
    return {
        "sliced_wasserstein": sliced_wasserstein(aggregate, samples, seed=seed),
        "sliced_wasserstein_of_chance": sliced_wasserstein(samples, again, seed=seed),
        "classifier": classifier_two_sample(aggregate, samples, seed),
    }
