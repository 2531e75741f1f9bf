"""How far decoded images are from what was seen: the reconstruction term of the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LIKELIHOODS = ("l2", "gaussian", "bernoulli")
_LEAST_LOG_SCALE = -5.0  # of a pixel in [0, 1]: below what 8 bits can tell apart


class Likelihood(nn.Module):
    """The reconstruction term of a decoder, for images in [0, 1].

    - `"l2"`: the squared error. With a weight of w in the loss, that is a Gaussian of variance 1 / (2 w).
    - `"gaussian"`: minus the log density of a Gaussian whose standard deviation, one number for all pixels, is
      learned (`log_scale`; Rybkin, Daniilidis and Levine, 2021). At the optimum it is the root of the mean squared
      error, so that the weight of reconstruction against KL divergence needs no tuning.
    - `"bernoulli"`: minus the log probability of pixels that are 0 or 1, the cross entropy for those between.

    Raises:
        ValueError: if there is no such likelihood.
    """

    def __init__(self, kind: str = "l2") -> None:
        super().__init__()
        check_likelihood(kind)
        self.kind = kind
        if kind == "gaussian":
            self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, decoded: Tensor, images: Tensor) -> Tensor:
        """The term, a scalar summed over all of both, which have one shape and lie in [0, 1]."""
        if self.kind == "bernoulli":
            return nn.functional.binary_cross_entropy(decoded, images, reduction="sum")
        error = (decoded - images).square().sum()
        if self.kind == "l2":
            return error
        log_scale = self.log_scale.clamp(min=_LEAST_LOG_SCALE)
        constant = images.numel() * 0.5 * math.log(2 * math.pi)
        return 0.5 * error * (-2 * log_scale).exp() + images.numel() * log_scale + constant

    def extra_repr(self) -> str:
        return repr(self.kind)


def check_likelihood(kind: str) -> None:
    """Require one of `LIKELIHOODS`.

    Raises:
        ValueError: if it is another.
    """
    if kind not in LIKELIHOODS:
        raise ValueError(f"likelihood must be {', '.join(LIKELIHOODS[:-1])} or {LIKELIHOODS[-1]}, got {kind!r}")
