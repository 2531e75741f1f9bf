"""Local scores without data and regressions, for the tests of searches."""

import math
import random
from functools import cache
from itertools import product

import networkx as nx
import torch
from torch import Tensor

from causalvae_fast.discovery.graphs import Parents, edges_of
from causalvae_fast.discovery.search import PenalisedScore


class RandomTable:
    """Stands in for `LocalScores`: a random number for each node and set of parents, more of them scoring more."""

    def __init__(self, d: int, seed: int, gain: float = 0.2) -> None:
        self.nodes = d
        draws = torch.randn(d, 1 << d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sizes = torch.tensor([bits.bit_count() for bits in range(1 << d)])
        self._table = (draws + gain * sizes).tolist()
        self.asked: set[tuple[int, int]] = set()

    def __call__(self, node: int, parents: int) -> float:
        assert not parents >> node & 1
        return self._table[node][parents]

    def fit(self, wanted) -> None:  # type: ignore[no-untyped-def]
        self.asked.update(wanted)


def random_score(d: int, seed: int, penalty: float = 0.1) -> PenalisedScore:
    return PenalisedScore(RandomTable(d, seed), penalty)  # type: ignore[arg-type]


class GaussianTable:
    """Stands in for `LocalScores`: exact ones of linear Gaussian variables with this covariance (d, d)."""

    def __init__(self, covariance: Tensor) -> None:
        self.nodes = len(covariance)
        self._covariance = covariance

    def __call__(self, node: int, parents: int) -> float:
        chosen = [j for j in range(self.nodes) if parents >> j & 1]
        variance = self._covariance[node, node]
        if chosen:
            cross = self._covariance[chosen, node]
            variance = variance - cross @ torch.linalg.solve(self._covariance[chosen][:, chosen], cross)
        return -0.5 * math.log(variance)

    def fit(self, wanted) -> None:  # type: ignore[no-untyped-def]
        pass


def tree_score(d: int, seed: int, penalty: float) -> PenalisedScore:
    """Of a tree at random: each node is its parent plus noise of variance 1."""
    draw = random.Random(seed)
    names = draw.sample(range(d), d)  # so that the order of the nodes says nothing
    weight = torch.zeros(d, d, dtype=torch.float64)
    for place in range(1, d):
        weight[names[place], names[draw.randrange(place)]] = 1
    factor = torch.linalg.inv(torch.eye(d, dtype=torch.float64) - weight)
    return PenalisedScore(GaussianTable(factor @ factor.mT), penalty)  # type: ignore[arg-type]


def is_acyclic(graph: Parents) -> bool:
    return bool(nx.is_directed_acyclic_graph(nx.DiGraph(edges_of(graph))))


@cache
def dags_one_by_one(d: int) -> list[Parents]:
    """Every choice of parents for every node, without those that have a cycle."""
    others = [[bits for bits in range(1 << d) if not bits >> node & 1] for node in range(d)]
    return [graph for graph in product(*others) if is_acyclic(graph)]
