"""How much latents respond to what others are there to carry."""

from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_latents_and_factors


class Leakage(NamedTuple):
    """The largest response of another latent, and what it is computed from.

    Attributes:
        leakage: largest response of the latents that are no carriers, relative to the smallest of the carriers; 0
            if all latents are carriers, inf if a carrier does not respond.
        response: (k,) float64, standard deviation, over the values of the factors, of the mean of each latent.
    """

    leakage: float
    response: Tensor


def leakage(latents: Tensor, factors: Tensor, carriers: tuple[int, ...]) -> Leakage:
    """Response of the latents to some factors, as position: of the carriers, and of the others.

    The response of latent i is sd over f of E[z_i | f]. The mean is over the samples with equal factors, in which
    everything else varies, so that what depends on that does not count.

    Args:
        latents: (N, k), finite.
        factors: (N, m), finite, with many samples for each of their values.
        carriers: the latents, at least one, that carry the factors.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit, a value is not finite, a factor is constant or a carrier is not there.

    >>> z = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 2.0]])
    >>> leakage(z, z[:, :1], carriers=(0,)).leakage
    0.0
    """
    check_latents_and_factors(latents, factors)
    k = latents.shape[1]
    if not carriers or any(not 0 <= carrier < k for carrier in carriers):
        raise ValueError(f"carriers must be some of 0 to {k - 1}, got {carriers}")
    z = latents.detach().cpu().double()
    values, group, counts = factors.detach().cpu().unique(dim=0, return_inverse=True, return_counts=True)
    total = torch.zeros(len(values), k, dtype=torch.float64, device="cpu").index_add_(0, group, z)
    mean = total / counts.unsqueeze(1)
    weight = (counts.double() / counts.sum()).unsqueeze(1)
    response = ((mean - (weight * mean).sum(0)).square() * weight).sum(0).sqrt()
    others = [float(response[i]) for i in range(k) if i not in carriers]
    smallest = min(float(response[i]) for i in carriers)
    if not others:
        return Leakage(0.0, response)
    return Leakage(max(others) / smallest if smallest > 0 else torch.inf, response)
