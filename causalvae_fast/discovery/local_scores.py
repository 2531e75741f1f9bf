"""The log likelihood of a node given its parents, out of sample: what the score of a graph is a sum of."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor

from causalvae_fast.discovery.regression import Regressions

# A Gaussian has no density where its variance vanishes; X has columns of variance 1.
LEAST_VARIANCE = 1e-10


class LocalScores:
    """Mean log N(x_i; f(x_parents), sigma^2) of each node i and each set of parents, fitted when first asked for.

    f is fitted to all samples but the one whose density is taken; sigma^2 is the mean square of the residuals that
    this leaves. A set of parents is an integer whose bit j is set for the parent j.

    Args:
        X: (n, d) float64, each column with mean 0 and variance 1.
        features, seed: of the regressions.
        report: is called with the number of fits after each batch.
        names: of the columns, for errors; their numbers by default.
    """

    def __init__(
        self,
        X: Tensor,
        features: int,
        seed: int,
        report: Callable[[int], None],
        names: Sequence[Hashable] | None = None,
    ) -> None:
        self.samples, self.nodes = X.shape
        self._names = names or range(self.nodes)
        self._regressions = Regressions(X, features, seed)
        self._means: dict[tuple[int, int], float] = {}
        self._report = report

    def __call__(self, node: int, parents: int) -> float:
        if (node, parents) not in self._means:
            self.fit([(node, parents)])
        return self._means[node, parents]

    @property
    def fits(self) -> int:
        """How many nodes and parent sets have been fitted."""
        return len(self._means)

    def fit(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Fit what is not yet there, together.

        Raises:
            ValueError: if a column is a function of others, without noise.
        """
        missing = [fit for fit in dict.fromkeys(wanted) if fit not in self._means]
        for batch in self._regressions.batches(missing):
            variances = self._regressions.residuals(batch).square().mean(1)
            for (node, parents), variance in zip(batch, variances.tolist(), strict=True):
                if variance < LEAST_VARIANCE:
                    raise ValueError(
                        f"X has a column without noise of its own: column {self._names[node]!r} is a function of "
                        f"the columns {[self._names[j] for j in members(parents)]}; leave one of them out"
                    )
                self._means[node, parents] = -0.5 * math.log(2 * math.pi * math.e * variance)
            self._report(len(self._means))

    def log_densities(self, parents: tuple[int, ...], other: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """log p (n,) of each sample under two graphs, each the parents of its nodes, where they differ.

        Terms of nodes that have the same parents in both are left out: only the difference is of use.
        """
        differing = [node for node, (a, b) in enumerate(zip(parents, other, strict=True)) if a != b]
        first, second = ([(node, graph[node]) for node in differing] for graph in (parents, other))
        total = torch.zeros(2, self.samples, dtype=torch.float64)
        for k, fits in enumerate((first, second)):
            for batch in self._regressions.batches(fits):
                r2 = self._regressions.residuals(batch).square()
                variance = r2.mean(1, keepdim=True)
                total[k] -= 0.5 * ((2 * math.pi * variance).log() + r2 / variance).sum(0)
        return total[0], total[1]


def members(parents: int) -> list[int]:
    """The nodes of a set."""
    return [j for j in range(parents.bit_length()) if parents >> j & 1]
