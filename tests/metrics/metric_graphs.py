"""Graphs for the tests of metrics: boolean adjacency matrices, [i, j] true where i -> j."""

import torch
from torch import Tensor


def graph(d: int, *edges: tuple[int, int]) -> Tensor:
    adjacency = torch.zeros(d, d, dtype=torch.bool)
    for parent, child in edges:
        adjacency[parent, child] = True
    return adjacency


def random_graph(d: int, density: float, seed: int) -> Tensor:
    return (torch.rand(d, d, generator=torch.Generator().manual_seed(seed)) < density).fill_diagonal_(False)


def random_dag(d: int, density: float, seed: int) -> Tensor:
    order = torch.randperm(d, generator=torch.Generator().manual_seed(seed))
    return random_graph(d, density, seed).tril(-1)[order][:, order]
