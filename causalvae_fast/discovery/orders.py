"""Greedy search over the orders of the nodes, for more nodes than can be searched exhaustively.

In a given order, each node chooses its parents among those before it: one after another is added while the score
rises, then removed while it rises. An order is improved by swapping neighbours, the best swap of the d - 1 at a
time, until none helps; a swap changes the choice of two nodes only. The first order comes from adding edges to the
empty graph, the one that raises the score most at a time; further ones are random.

Regressions: about d^2 for the first edges and d for each added parent of each order that is tried; none is made
twice. Whatever is found is a local maximum.

Source: Teyssier and Koller, Ordering-based search: a simple and effective algorithm for learning Bayesian networks
(2005); Buehlmann, Peters, Ernest, CAM: Causal additive models, high-dimensional order search and penalized
regression (2014), for the first order.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from causalvae_fast.discovery.graphs import Parents, reached_from, topological_order
from causalvae_fast.discovery.search import Limits, PenalisedScore

Edge = tuple[int, int]
Order = tuple[int, ...]


class OrderSearch:
    """Local maxima over orders, from several starts."""

    def __init__(self, score: PenalisedScore, limits: Limits) -> None:
        self._score = score
        self._limits = limits
        self._chosen: dict[tuple[int, int, int], int] = {}
        self._visited: dict[Parents, float] = {}
        d = score.local.nodes
        draw = random.Random(limits.seed)
        starts = [topological_order(self._add_edges())]
        starts += [draw.sample(range(d), d) for _ in range(limits.restarts)]
        for start in starts:
            self._climb(tuple(start))

    @property
    def graphs(self) -> int:
        return len(self._visited)

    def ranking(self, count: int) -> list[Parents]:
        return sorted(self._visited, key=lambda graph: self._visited[graph], reverse=True)[:count]

    def best_with_edge(self, parent: int, child: int) -> Parents:
        """The better of two local maxima of the orders with `parent` before `child`.

        One climb starts from an order of the best graph of all, with the parent moved before the child. The other
        from the order in which its nodes are reached from the parent, whatever way its edges point: that of a tree
        with this root, which fits as well if the data are linear and Gaussian. Swaps would have to turn
        every edge on the way there, the first of them at a loss.
        """
        best, edge = self.ranking(1)[0], (parent, child)
        order = topological_order(best)
        moved = [node for node in order if node != parent]
        moved.insert(moved.index(child), parent)
        starts = [moved, reached_from(parent, best)]
        found = [self._graph(self._climb(tuple(start), edge), edge) for start in starts]
        return max(found, key=lambda graph: self._visited[graph])

    def _climb(self, order: Order, edge: Edge | None = None) -> Order:
        """Swap neighbours while that helps, keeping `edge` in the graph."""
        value = self._value(order, edge)
        while True:
            neighbours = [
                (*order[:k], order[k + 1], order[k], *order[k + 2 :])
                for k in range(len(order) - 1)
                if (order[k], order[k + 1]) != edge
            ]
            best = max(neighbours, key=lambda other: self._value(other, edge), default=order)
            # Sums in another order may differ in the last bits: only what is more counts, or this might not end.
            if self._value(best, edge) <= value + 1e-12:
                return order
            order, value = best, self._value(best, edge)

    def _value(self, order: Order, edge: Edge | None) -> float:
        graph = self._graph(order, edge)
        if graph not in self._visited:
            self._visited[graph] = self._score(graph)
        return self._visited[graph]

    def _graph(self, order: Order, edge: Edge | None) -> Parents:
        """Each node with the parents that it chooses among those before it."""
        graph = [0] * len(order)
        before = 0
        for node in order:
            kept = 1 << edge[0] if edge is not None and node == edge[1] else 0
            graph[node] = self._choose(node, before, kept)
            before |= 1 << node
        return tuple(graph)

    def _choose(self, node: int, allowed: int, kept: int) -> int:
        """A set of parents within `allowed`, with those in `kept`, that no single change improves."""
        key = (node, allowed, kept)
        if key not in self._chosen:
            grown = self._while_better(node, kept, lambda chosen: allowed & ~chosen)
            self._chosen[key] = self._while_better(node, grown, lambda chosen: chosen & ~kept)
        return self._chosen[key]

    def _while_better(self, node: int, chosen: int, changes: Callable[[int], int]) -> int:
        """Add or remove a single parent, the one of `changes` that helps most, while one helps."""
        value = self._score.of_node(node, chosen)
        while True:
            flipped = changes(chosen)
            options = [chosen ^ 1 << j for j in range(self._score.local.nodes) if flipped >> j & 1]
            options = [option for option in options if option.bit_count() <= self._limits.max_parents]
            self._score.local.fit((node, option) for option in options)
            best = max(options, key=lambda option: self._score.of_node(node, option), default=chosen)
            if self._score.of_node(node, best) <= value:
                return chosen
            chosen, value = best, self._score.of_node(node, best)

    def _add_edges(self) -> Parents:
        """From the empty graph, add the edge without a cycle that raises the score most, while one does."""
        d = self._score.local.nodes
        graph = [0] * d
        ancestors = [0] * d
        while True:
            options = [
                (i, j)
                for j in range(d)
                for i in range(d)
                if i != j
                and not graph[j] >> i & 1
                and not ancestors[i] >> j & 1
                and graph[j].bit_count() < self._limits.max_parents
            ]
            self._score.local.fit((j, graph[j] | 1 << i) for i, j in options)
            gains = {(i, j): self._gain(j, graph[j], i) for i, j in options}
            if not gains or max(gains.values()) <= 0:
                return tuple(graph)
            parent, child = max(gains, key=lambda edge: gains[edge])
            graph[child] |= 1 << parent
            above = ancestors[parent] | 1 << parent
            for node in range(d):
                if node == child or ancestors[node] >> child & 1:
                    ancestors[node] |= above

    def _gain(self, node: int, parents: int, added: int) -> float:
        return self._score.of_node(node, parents | 1 << added) - self._score.of_node(node, parents)
