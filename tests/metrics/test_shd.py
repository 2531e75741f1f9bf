"""Structural Hamming distance of two graphs."""

import pytest
import torch
from metric_graphs import graph, random_graph
from torch import Tensor

from causalvae_fast.metrics import shd


def shd_by_pairs(adjacency: Tensor, truth: Tensor, reversed_cost: int) -> int:
    """The definition, pair of nodes by pair of nodes."""
    total = 0
    for i in range(adjacency.shape[0]):
        for j in range(i):
            learned = (bool(adjacency[i, j]), bool(adjacency[j, i]))
            true = (bool(truth[i, j]), bool(truth[j, i]))
            if learned == true:
                continue
            if {learned, true} == {(True, False), (False, True)}:
                total += reversed_cost
            else:
                total += (learned[0] != true[0]) + (learned[1] != true[1])
    return total


@pytest.mark.parametrize(
    ("learned", "truth", "expected"),
    [
        (graph(3), graph(3), 0),
        (graph(3, (0, 1)), graph(3, (0, 1)), 0),
        (graph(3, (0, 1)), graph(3), 1),  # superfluous
        (graph(3), graph(3, (0, 1)), 1),  # missing
        (graph(3, (1, 0)), graph(3, (0, 1)), 1),  # turned round
        (graph(3, (0, 1), (1, 0)), graph(3, (0, 1)), 1),  # one of two directions is superfluous
        (graph(3, (0, 1), (1, 0)), graph(3), 2),
        (graph(4, (1, 0), (2, 3)), graph(4, (0, 1), (0, 2)), 3),  # turned round, superfluous, missing
    ],
)
def test_hand_worked(learned: Tensor, truth: Tensor, expected: int) -> None:
    assert shd(learned, truth) == expected


def test_a_reversed_edge_can_count_twice() -> None:
    assert shd(graph(3, (1, 0), (1, 2)), graph(3, (0, 1)), reversed_cost=2) == 3
    assert shd(graph(3, (1, 0), (1, 2)), graph(3, (0, 1)), reversed_cost=1) == 2


@pytest.mark.parametrize("reversed_cost", [1, 2])
@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_definition_on_random_graphs(d: int, reversed_cost: int) -> None:
    for seed in range(10):
        learned, truth = random_graph(d, 0.3, seed), random_graph(d, 0.4, seed + 100)
        assert shd(learned, truth, reversed_cost=reversed_cost) == shd_by_pairs(learned, truth, reversed_cost)


def test_symmetric_and_invariant_under_relabelling() -> None:
    learned, truth = random_graph(9, 0.3, 0), random_graph(9, 0.3, 1)
    distance = shd(learned, truth)
    assert distance > 0
    assert shd(truth, learned) == distance
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    assert shd(learned[order][:, order], truth[order][:, order]) == distance
    assert shd(learned.mT, truth.mT) == distance


def test_triangle_inequality() -> None:
    for seed in range(20):
        a, b, c = (random_graph(6, 0.4, 3 * seed + i) for i in range(3))
        assert shd(a, c) <= shd(a, b) + shd(b, c)


def test_no_nodes() -> None:
    assert shd(graph(0), graph(0)) == 0


@pytest.mark.parametrize("name", ["adjacency", "truth"])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.bool), ValueError, r"must have shape \(d, d\)"),
        (torch.zeros(3, dtype=torch.bool), ValueError, r"must have shape \(d, d\)"),
        (torch.zeros(3, 3), TypeError, "must be a boolean adjacency matrix, got torch.float32"),
        (graph(3, (2, 2)), ValueError, r"has self-loops, at the nodes \[2\]"),
    ],
)
def test_errors_name_the_argument(name: str, bad: Tensor, error: type[Exception], message: str) -> None:
    arguments = {"adjacency": graph(3), "truth": graph(3)} | {name: bad}
    with pytest.raises(error, match=f"^{name} {message}"):
        shd(**arguments)


def test_graphs_of_different_size() -> None:
    with pytest.raises(ValueError, match="truth must have the shape of adjacency"):
        shd(graph(3), graph(4))


@pytest.mark.parametrize("reversed_cost", [0, 3, 1.5])
def test_cost_of_a_reversed_edge(reversed_cost: int) -> None:
    with pytest.raises(ValueError, match="reversed_cost must be 1 or 2"):
        shd(graph(3), graph(3), reversed_cost=reversed_cost)


@pytest.mark.parametrize(
    ("graph", "remedy"), [(torch.zeros(2, 2), "use x > 0.5"), (torch.zeros(2, 2).int(), r"use x\.bool\(\) if it")]
)
def test_probabilities_and_zeros_and_ones_get_the_remedy(graph: torch.Tensor, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"^truth must be a boolean adjacency matrix, got {graph.dtype}: {remedy}"):
        shd(graph.bool(), graph)
