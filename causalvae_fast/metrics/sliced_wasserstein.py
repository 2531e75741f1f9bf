"""Distance between two sets of samples, in many directions."""

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_samples


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 256, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance: the root of the mean, over random directions u, of W2(a u, b u)^2.

    Along a direction W2 is the distance of the sorted samples. It has the units of the samples; between two sets
    of n from one distribution it is of the order of n^(-1/2) if they have light tails.

    Args:
        a, b: (n, d) both, finite.
        projections: number of directions, at least 1.
        seed: of the directions.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit or a value is not finite.

    Source: Bonneel et al., Sliced and Radon Wasserstein barycenters of measures (2015).
    """
    check_samples(a, b)
    if a.shape != b.shape:
        raise ValueError(f"b must have the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    generator = torch.Generator("cpu").manual_seed(seed)
    u = torch.randn(a.shape[1], projections, generator=generator, dtype=torch.float64, device="cpu")
    u = u / u.norm(dim=0)
    sorted_a, sorted_b = ((x.detach().cpu().double() @ u).sort(0).values for x in (a, b))
    return float((sorted_a - sorted_b).square().mean().sqrt())
