"""What a search gives, and the score that it maximises."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from causalvae_fast.discovery.graphs import Parents, count_edges
from causalvae_fast.discovery.local_scores import LocalScores


class PenalisedScore:
    """Mean log likelihood of a graph, less `penalty` for each edge."""

    def __init__(self, local: LocalScores, penalty: float) -> None:
        self.local = local
        self.penalty = penalty

    def of_node(self, node: int, parents: int) -> float:
        """The part of a node and its parents, a set as bits."""
        return self.local(node, parents) - self.penalty * parents.bit_count()

    def __call__(self, graph: Parents) -> float:
        return self.log_likelihood(graph) - self.penalty * count_edges(graph)

    def log_likelihood(self, graph: Parents) -> float:
        return sum(self.local(node, bits) for node, bits in enumerate(graph))


class Search(Protocol):
    """A search over graphs."""

    def ranking(self, count: int) -> list[Parents]:
        """The best graphs, best first: at most `count`."""

    def best_with_edge(self, parent: int, child: int) -> Parents:
        """The best graph that has the edge parent -> child."""

    @property
    def graphs(self) -> int:
        """How many graphs have been compared."""


class Limits(NamedTuple):
    """What a search may do."""

    max_parents: int
    restarts: int
    seed: int
