"""Graphs as sets of parents."""

import networkx as nx
import pytest
import torch
from tables import dags_one_by_one

from causalvae_fast.discovery.graphs import all_dags, count_edges, edges_of, to_adjacency, topological_order


@pytest.mark.parametrize(("d", "count"), [(1, 1), (2, 3), (3, 25), (4, 543), (5, 29281)])
def test_number_of_graphs(d: int, count: int) -> None:
    """Robinson (1973), Counting labeled acyclic digraphs."""
    graphs = all_dags(d, d - 1)
    assert len(graphs) == len(set(graphs)) == count


def test_all_of_them_are_there() -> None:
    assert set(all_dags(3, 2)) == set(dags_one_by_one(3))
    few = [graph for graph in dags_one_by_one(3) if max(bits.bit_count() for bits in graph) <= 1]
    assert set(all_dags(3, 1)) == set(few)
    assert all_dags(4, 0) == [(0, 0, 0, 0)]


def test_edges_and_adjacency() -> None:
    graph = (0b110, 0b000, 0b010)  # 1 -> 0, 2 -> 0, 1 -> 2
    assert edges_of(graph) == [(1, 0), (1, 2), (2, 0)]
    assert count_edges(graph) == 3
    assert to_adjacency(graph).int().tolist() == [[0, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert to_adjacency(graph).dtype == torch.bool


def test_topological_order() -> None:
    for graph in all_dags(4, 3):
        order = topological_order(graph)
        assert order == list(
            nx.lexicographical_topological_sort(
                nx.from_numpy_array(to_adjacency(graph).int().numpy(), create_using=nx.DiGraph)
            )
        )
