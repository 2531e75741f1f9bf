"""Search over every directed acyclic graph of a few nodes. Exact.

The score is a sum over nodes, each given its parents, so that d 2^(d - 1) regressions are all that the 543 graphs
of 4 nodes, or the 29,281 of 5, need: 32 or 80.
"""

from __future__ import annotations

import torch

from causalvae_fast.discovery.graphs import Parents, all_dags
from causalvae_fast.discovery.search import Limits, PenalisedScore

MAX_NODES = 5  # 6 nodes have 3,781,503 graphs


def fits_of(d: int, limits: Limits) -> list[tuple[int, int]]:
    """Each node with each set of at most `max_parents` others, as bits."""
    return [
        (node, bits)
        for node in range(d)
        for bits in range(1 << d)
        if not bits >> node & 1 and bits.bit_count() <= limits.max_parents
    ]


class ExhaustiveSearch:
    """All graphs with their scores."""

    def __init__(self, score: PenalisedScore, limits: Limits) -> None:
        d = score.local.nodes
        fits = fits_of(d, limits)
        score.local.fit(fits)
        table = torch.full((d, 1 << d), -torch.inf, dtype=torch.float64)
        for node, bits in fits:
            table[node, bits] = score.of_node(node, bits)
        self._parents = torch.tensor(all_dags(d, limits.max_parents))  # (graphs, d), bits
        self._scores = table[torch.arange(d), self._parents].sum(1)  # (graphs,)

    @property
    def graphs(self) -> int:
        return len(self._scores)

    def ranking(self, count: int) -> list[Parents]:
        best = self._scores.sort(descending=True, stable=True).indices[:count]
        return [tuple(graph) for graph in self._parents[best].tolist()]

    def best_with_edge(self, parent: int, child: int) -> Parents:
        having = (self._parents[:, child] >> parent & 1).bool()
        return tuple(self._parents[self._scores.where(having, -torch.inf).argmax()].tolist())
