"""What the models share: a Gaussian encoder, a causal prior, and how images come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from causalvae_fast.graph.interventions import Do
from causalvae_fast.ops._packed import packed_size
from causalvae_fast.posterior import Posterior
from causalvae_fast.prior import SEMPrior
from causalvae_fast.scale_tril import ScaleTril

POSTERIORS = ("diagonal", "full")
_LOG_SCALE_RANGE = (-8, 3)


def check_slope(config: Any) -> None:
    """Require a `negative_slope` with which a leaky ReLU is invertible, as identifiability needs.

    Raises:
        ValueError: if it is not above 0 or not finite.
    """
    if not (math.isfinite(config.negative_slope) and config.negative_slope > 0):
        raise ValueError(f"negative_slope must be above 0, got {config.negative_slope}")


def check_edges(config: Any) -> None:
    """Require an `edge_probability` and a `temperature` that Gumbel-softmax gates can have.

    Raises:
        ValueError: if one is out of range.
    """
    if not 0 < config.edge_probability < 1:
        raise ValueError(f"edge_probability must lie between 0 and 1, got {config.edge_probability}")
    if not config.temperature > 0:
        raise ValueError(f"temperature must be above 0, got {config.temperature}")


def check_posterior(config: Any) -> None:
    """Require a `posterior` that is one of `POSTERIORS`.

    Raises:
        ValueError: if it is another.
    """
    if config.posterior not in POSTERIORS:
        raise ValueError(f"posterior must be {' or '.join(POSTERIORS)}, got {config.posterior!r}")


class CausalVAE(nn.Module):
    """A VAE with a Gaussian posterior, its covariance diagonal or full, and a structural equation model as prior.

    A subclass sets `encoder`, whose output has `features` numbers, and calls `make_heads`. The encoder of the
    means ends with a leaky ReLU, and the decoder must start with one: a condition of the identifiability theorem.
    """

    encoder: nn.Module
    prior: SEMPrior

    def make_heads(self, features: int, latents: int, negative_slope: float, posterior: str = "diagonal") -> None:
        """From features to means, and to log standard deviations or a lower triangular factor (Eq. 4)."""
        self.to_loc = nn.Sequential(nn.Linear(features, latents), nn.LeakyReLU(negative_slope))
        if posterior == "full":
            factor = ScaleTril(latents, packed=True, log_range=_LOG_SCALE_RANGE)
            self.to_scale_tril = nn.Sequential(nn.Linear(features, packed_size(latents)), factor)
        else:
            self.to_log_scale = nn.Linear(features, latents)

    def posterior(self, inputs: Tensor) -> Posterior:
        """Of latents (N, k), from what the encoder takes."""
        features = self.encoder(inputs)
        loc = self.to_loc(features)
        if hasattr(self, "to_scale_tril"):
            return Posterior(loc, None, self.to_scale_tril(features))
        return Posterior(loc, self.to_log_scale(features).clamp(*_LOG_SCALE_RANGE).exp(), None)

    def intervened(self, z: Tensor, do: Do, *, redraw: bool) -> Tensor:
        """Latents z (N, d) under interventions: what these reach is drawn anew, or keeps the noise of z."""
        return (self.prior.intervene if redraw else self.prior.counterfactual)(z, do)

    def as_floats(self, name: str, x: Tensor, shapes: Sequence[tuple[int | str, ...]]) -> Tensor:
        """Images as floats in [0, 1], if they have one of the shapes, in which a letter stands for any size.

        Raises:
            TypeError: if x is no tensor.
            ValueError: if it has another shape, dtype or range.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if not any(_fits(x, shape) for shape in shapes):
            expected = " or ".join(f"({', '.join(map(str, shape))})" for shape in shapes)
            raise ValueError(f"{name} must have shape {expected}, got {tuple(x.shape)}")
        if x.dtype == torch.uint8:
            return x.to(self.prior.log_sigma.dtype) / 255
        if not x.is_floating_point():
            raise ValueError(f"{name} must be uint8, or float in [0, 1], got {x.dtype}")
        if not torch.compiler.is_compiling() and x.numel() > 0:
            low, high = x.detach().aminmax()
            if bool((low < 0) | (high > 1)):
                raise ValueError(
                    f"{name} must be uint8, or float in [0, 1], got floats from {low.item():g} to {high.item():g}"
                )
        return x.to(self.prior.log_sigma.dtype)


def _fits(x: Tensor, shape: tuple[int | str, ...]) -> bool:
    return x.dim() == len(shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(shape, x.shape, strict=True)
    )
