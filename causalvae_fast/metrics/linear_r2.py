"""How much of a target a linear function of the latents explains."""

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_tensor


def linear_r2(latents: Tensor, targets: Tensor, seed: int = 0) -> Tensor:
    """Coefficient of determination of each target, predicted linearly from the latents, on held-out samples.

    The samples are shuffled. A least-squares fit with intercept, targets ~ latents C + c, is made on the
    first half and scored on the second:

        R2 = 1 - sum_n (y_n - prediction_n)^2 / sum_n (y_n - mean y)^2

    Latents that are identified up to a linear map score 1 on what they encode. Latents that do not vary, or
    that repeat one another, do no harm (the fit of least norm is taken).

    Args:
        latents: (N, k), finite.
        targets: (N, m), finite.
        seed: of the shuffle.

    Returns:
        (m,) float64 on the CPU, at most 1; 0 is as good as the mean of the held-out targets, negative is
        worse. NaN for a target that is constant in the held-out half.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit, a value is not finite, or there are fewer than 2 (k + 2) samples:
            the first half must have more than the fit has coefficients.
    """
    for name, value in (("latents", latents), ("targets", targets)):
        check_tensor(name, value)
        if value.dim() != 2:
            raise ValueError(f"{name} must have two dimensions, (N, k) and (N, m), got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite")
    samples, k = latents.shape
    if targets.shape[0] != samples:
        raise ValueError(f"targets must have the {samples} samples of latents, got {targets.shape[0]}")
    if samples < 2 * (k + 2):
        raise ValueError(f"latents must have at least {2 * (k + 2)} samples for k = {k}, got {samples}")

    shuffled = torch.randperm(samples, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    fit, held_out = shuffled[: samples // 2], shuffled[samples // 2 :]
    x, y = latents.detach().cpu().double(), targets.detach().cpu().double()
    # The intercept is what is left when both sides are centred.
    x_mean, y_mean = x[fit].mean(0), y[fit].mean(0)
    coefficients = torch.linalg.lstsq(x[fit] - x_mean, y[fit] - y_mean, driver="gelsd").solution  # (k, m)
    residual = y[held_out] - y_mean - (x[held_out] - x_mean) @ coefficients
    deviation = y[held_out] - y[held_out].mean(0)
    r2 = 1 - residual.square().sum(0) / deviation.square().sum(0)
    # By comparison, not by the sum of squares: the mean of equal numbers may differ in the last bit.
    constant = y[held_out].amax(0) == y[held_out].amin(0)
    return torch.where(constant, torch.nan, r2)
