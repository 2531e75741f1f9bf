"""Graphs as the parents of their nodes: a tuple of d sets, each an integer whose bit j is set for the parent j."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

Parents = tuple[int, ...]


def all_dags(d: int, max_parents: int) -> list[Parents]:
    """Every directed acyclic graph of d nodes with at most `max_parents` parents each: 1, 3, 25, 543, 29,281.

    Each pair of nodes is joined by no edge, or by one of two directions; of these 3^(d (d - 1) / 2) graphs, those
    are kept whose nodes can be removed one by one, each when it has no parents left.
    """
    pairs = list(combinations(range(d), 2))
    code = torch.arange(3 ** len(pairs))
    edges = torch.zeros(len(code), d, d, dtype=torch.bool)  # [g, i, j]: i -> j
    for k, (i, j) in enumerate(pairs):
        digit = code // 3**k % 3
        edges[:, i, j], edges[:, j, i] = digit == 1, digit == 2
    left = torch.ones(len(code), d, dtype=torch.bool)
    for _ in range(d):
        left &= (edges & left.unsqueeze(-1)).any(1)  # with a parent that is left
    kept = edges[~left.any(1) & (edges.sum(1) <= max_parents).all(1)]
    bits = (kept * (1 << torch.arange(d)).unsqueeze(-1)).sum(1)  # (graphs, d)
    return [tuple(graph) for graph in bits.tolist()]


def count_edges(parents: Parents) -> int:
    return sum(bits.bit_count() for bits in parents)


def edges_of(parents: Parents) -> list[tuple[int, int]]:
    """The edges (i, j), i -> j."""
    d = len(parents)
    return [(i, j) for i in range(d) for j in range(d) if parents[j] >> i & 1]


def to_adjacency(parents: Parents) -> Tensor:
    """Boolean (d, d), [i, j] true where i -> j."""
    adjacency = torch.zeros(len(parents), len(parents), dtype=torch.bool)
    for i, j in edges_of(parents):
        adjacency[i, j] = True
    return adjacency


def topological_order(parents: Parents) -> list[int]:
    """The nodes, each after its parents; of several that could come next, the first."""
    order: list[int] = []
    placed = 0
    while len(order) < len(parents):
        node = next(i for i, bits in enumerate(parents) if not placed >> i & 1 and bits & ~placed == 0)
        order.append(node)
        placed |= 1 << node
    return order


def reached_from(root: int, parents: Parents) -> list[int]:
    """The nodes in the order in which they are reached from one, breadth first, along edges of either direction.

    Those that cannot be reached come last, each after its parents.
    """
    reached = [root]
    for node in reached:
        joined = [j for j, bits in enumerate(parents) if bits >> node & 1 or parents[node] >> j & 1]
        reached += [j for j in joined if j not in reached]
    return reached + [node for node in topological_order(parents) if node not in reached]
