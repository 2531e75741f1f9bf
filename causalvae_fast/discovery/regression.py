"""Non-linear regressions of nodes on their parents, many at a time, with exact leave-one-out residuals.

Each is a ridge regression on linear and random Fourier features of the parents, with an intercept:

    x_i = c + v . x_S + sum_k w_k sqrt(2 / K) cos(omega_k . x_S / sqrt(|S|) + phi_k),
    minimising |residual|^2 + lambda ( |v / 10|^2 + |w|^2 )

The frequencies omega_k are drawn from a multivariate t distribution with 3 degrees of freedom, so that the
functions have the Matern kernel of smoothness 3/2 in the limit of many features: heavy tails, for functions that
are smooth in one place and steep in another. All parent sets share them, each with the rows of its parents.

With H the hat matrix, the residual of a sample under the fit to all others is r_n / (1 - H_nn). lambda is the one
of a grid with the least sum of their squares.

Source: Rahimi and Recht, Random features for large-scale kernel machines (2007); for the residuals, Allen, The
relationship between variable selection and data augmentation and a method for prediction (1974).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
# Linear terms are shrunk a hundred times less: straight lines should cost nothing.
LINEAR_SCALE = 10.0
DEGREES_OF_FREEDOM = 3
# Elements of the largest working tensors: 64 MiB of float64.
WORKING_SIZE = 2**23


class Regressions:
    """Fits of columns of X on others.

    Args:
        X: (n, d) float64, each column with mean 0 and variance 1.
        features: number K of random features.
        seed: of their frequencies and phases.
    """

    def __init__(self, X: Tensor, features: int, seed: int) -> None:
        generator = torch.Generator("cpu").manual_seed(seed)
        d = X.shape[1]
        normal = torch.randn(DEGREES_OF_FREEDOM + d, features, generator=generator, dtype=X.dtype)
        chi = normal[:DEGREES_OF_FREEDOM].square().mean(0).sqrt()  # (K,)
        self._X = X
        self._frequencies = normal[DEGREES_OF_FREEDOM:] / chi  # (d, K)
        self._phases = 2 * math.pi * torch.rand(features, generator=generator, dtype=X.dtype)  # (K,)
        self._width = d + features

    def batches(self, fits: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
        """Parts of a list of fits that are small enough to be made at once."""
        size = max(1, WORKING_SIZE // max(self._width**2, len(RIDGES) * len(self._X)))
        return (fits[start : start + size] for start in range(0, len(fits), size))

    def residuals(self, fits: Sequence[tuple[int, int]]) -> Tensor:
        """Leave-one-out residuals (C, n) of C fits, each a node and the set of its parents as bits."""
        X, (n, d) = self._X, self._X.shape
        nodes = torch.tensor([node for node, _ in fits])
        parents = torch.tensor([[bits >> j & 1 for j in range(d)] for _, bits in fits], dtype=X.dtype)  # (C, d)
        y = X[:, nodes].mT  # (C, n)
        rows = [slice(start, start + self._rows(len(fits))) for start in range(0, n, self._rows(len(fits)))]

        gram = X.new_zeros(len(fits), self._width, self._width)
        mean, moment = X.new_zeros(2, len(fits), self._width, 1)
        for part in rows:
            phi = self._features(part, parents)
            gram += phi.mT @ phi
            mean += phi.sum(1).unsqueeze(-1) / n
            moment += phi.mT @ y[:, part, None]
        gram -= n * mean @ mean.mT  # centred features, which make the intercept the mean of y: zero

        eigenvalues, eigenvectors = torch.linalg.eigh(gram)
        # (C, F, ridges) shrinkage of each direction
        shrinkage = 1 / (eigenvalues.clamp_min(0).unsqueeze(-1) + X.new_tensor(RIDGES))
        coefficients = shrinkage * (eigenvectors.mT @ moment)
        residuals = X.new_zeros(len(fits), n, len(RIDGES))
        for part in rows:
            rotated = (self._features(part, parents) - mean.mT) @ eigenvectors  # (C, rows, F)
            leverage = rotated.square() @ shrinkage + 1 / n
            residuals[:, part] = (y[:, part, None] - rotated @ coefficients) / (1 - leverage)
        best = residuals.square().mean(1).argmin(-1)  # (C,)
        return residuals[torch.arange(len(fits)), :, best]

    def _rows(self, fits: int) -> int:
        return max(1, WORKING_SIZE // (fits * self._width))

    def _features(self, part: slice, parents: Tensor) -> Tensor:
        """(C, rows, d + K) for parents (C, d); what is not a parent has features that are zero or constant."""
        x = self._X[part] * parents.unsqueeze(1)  # (C, rows, d)
        scale = parents.sum(1).clamp_min(1).rsqrt()[:, None, None]
        random = torch.cos((x * scale) @ self._frequencies + self._phases)
        return torch.cat((LINEAR_SCALE * x, math.sqrt(2 / self._phases.numel()) * random), -1)
