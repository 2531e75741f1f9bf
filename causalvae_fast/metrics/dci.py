"""Disentanglement, completeness and informativeness of latents."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_latents_and_factors, check_tensor


class DCI(NamedTuple):
    """The three scores.

    Attributes:
        disentanglement: from 0 to 1, where each latent is of use for one factor only.
        completeness: from 0 to 1, where each factor needs one latent only.
        informativeness: (m,) float64, held-out R2 of each factor, at most 1; NaN for one that is
            constant in the held-out half.
        importance: (k, m) float64, of each latent for each factor.
    """

    disentanglement: float
    completeness: float
    informativeness: Tensor
    importance: Tensor


def dci(latents: Tensor, factors: Tensor, l1: float = 0.01, seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness by linear regression with an L1 penalty.

    Each factor is regressed on all latents, both standardised, by the Lasso on a half of the samples,

        min_w  |y - Z w|^2 / (2 N) + l1 |w|_1

    and scored on the other half. The importance of a latent for a factor is |w|. Factors that are non-linear
    functions of a latent earn little here; importance from another regression, such as the feature importances
    of gradient boosted trees, goes into `disentanglement_completeness`.

    Args:
        latents: (N, k), finite.
        factors: (N, m), finite, each with at least two different values in either half of the samples.
        l1: weight of the L1 penalty, at least 0.
        seed: of the shuffle before the samples are divided.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit, a value is not finite, a factor is constant (in the half that is
            fitted: NaN in the other), `l1` is negative, or N is below 4.

    Source: Eastwood and Williams, A framework for the quantitative evaluation of disentangled representations
    (2018).
    """
    check_latents_and_factors(latents, factors)
    if l1 < 0:
        raise ValueError(f"l1 must be at least 0, got {l1}")
    samples = latents.shape[0]
    if samples < 4:
        raise ValueError(f"latents must have at least 4 samples, got {samples}")
    shuffled = torch.randperm(samples, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    fit, held_out = shuffled[: samples // 2], shuffled[samples // 2 :]
    z, y = latents.detach().cpu().double(), factors.detach().cpu().double()
    check_latents_and_factors(latents[fit], factors[fit])

    z_mean, z_scale = z[fit].mean(0), _scale(z[fit])
    y_mean, y_scale = y[fit].mean(0), _scale(y[fit])
    weights = lasso((z[fit] - z_mean) / z_scale, (y[fit] - y_mean) / y_scale, l1)  # (k, m)
    residual = (y[held_out] - y_mean) / y_scale - (z[held_out] - z_mean) / z_scale @ weights
    deviation = (y[held_out] - y[held_out].mean(0)) / y_scale
    r2 = 1 - residual.square().sum(0) / deviation.square().sum(0)
    # By comparison, not by the sum of squares: the mean of equal numbers may differ in the last bit.
    constant = y[held_out].amax(0) == y[held_out].amin(0)
    informativeness = torch.where(constant, torch.nan, r2)
    importance = weights.abs()
    return DCI(*disentanglement_completeness(importance), informativeness, importance)


def disentanglement_completeness(importance: Tensor) -> tuple[float, float]:
    """Disentanglement and completeness from the importance of each latent for each factor.

    The disentanglement of latent i is 1 - H(its share of importance over the m factors) / log m, and the mean is
    weighted by the importance of the latent for all factors. The completeness of factor j is 1 - H(its share over
    the k latents) / log k, and the mean is weighted in the same way. A single factor, or a single latent, has
    no entropy: the score is 1.

    Args:
        importance: (k, m), at least 0, finite.

    Returns:
        Two numbers from 0 to 1. NaN if no latent is of importance.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if importance has another shape, is negative or not finite.

    >>> disentanglement_completeness(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    (1.0, 1.0)
    """
    check_tensor("importance", importance)
    if importance.dim() != 2 or importance.numel() == 0:
        raise ValueError(f"importance must have shape (k, m), k and m at least 1, got {tuple(importance.shape)}")
    if not bool((torch.isfinite(importance) & (importance >= 0)).all()):
        raise ValueError("importance must be finite and at least 0")
    weights = importance.detach().cpu().double()
    return _concentration(weights), _concentration(weights.mT)


def _concentration(importance: Tensor) -> float:
    """1 - relative entropy of the rows, averaged with their sums as weights."""
    total = importance.sum(1)  # of each row
    options = importance.shape[1]
    share = importance / total.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)
    entropy = -torch.special.xlogy(share, share).sum(1) / math.log(max(options, 2))
    return float(((1 - entropy) * total).sum() / total.sum())


def lasso(z: Tensor, y: Tensor, l1: float, tolerance: float = 1e-10, sweeps: int = 10_000) -> Tensor:
    """Coefficients (k, m) that minimise |y - z w|^2 / (2 N) + l1 |w|_1, by coordinate descent.

    Args:
        z: (N, k) and y (N, m), centred. Columns of z that are zero get the coefficient 0.
        l1: at least 0.
        tolerance: the largest change of a coefficient in the last sweep.
        sweeps: at most.
    """
    n = len(z)
    gram, moment = z.mT @ z / n, z.mT @ y / n  # (k, k), (k, m)
    weights = torch.zeros_like(moment)
    for _ in range(sweeps):
        change = 0.0
        for i, curvature in enumerate(gram.diagonal().tolist()):
            if curvature == 0:
                continue
            slope = moment[i] - gram[i] @ weights + curvature * weights[i]
            updated = slope.sign() * (slope.abs() - l1).clamp_min(0) / curvature
            change = max(change, float((updated - weights[i]).abs().max()))
            weights[i] = updated
        if change <= tolerance:
            break
    return weights


def _scale(x: Tensor) -> Tensor:
    """Standard deviation of each column; 1 where a column does not vary."""
    return torch.where(x.amax(0) > x.amin(0), x.std(0, correction=0), 1.0)
