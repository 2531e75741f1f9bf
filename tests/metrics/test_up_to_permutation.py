"""Graph metrics up to the order of the nodes."""

from itertools import permutations

import pytest
import torch
from metric_graphs import graph, random_dag, random_graph

from causalvae_fast.metrics import edge_scores, edge_scores_up_to_permutation, shd, shd_up_to_permutation


@pytest.mark.parametrize("d", [1, 2, 4, 7])
def test_a_relabelled_graph_is_the_same(d: int) -> None:
    truth = random_dag(d, 0.6, seed=d)
    order = torch.randperm(d, generator=torch.Generator().manual_seed(1))
    learned = truth[order][:, order]
    assert shd_up_to_permutation(learned, truth).shd == 0
    scores, permutation = edge_scores_up_to_permutation(learned, truth)
    assert scores == (1, 1, 1)
    assert torch.equal(learned[list(permutation)][:, list(permutation)], truth)


@pytest.mark.parametrize("reversed_cost", [1, 2])
def test_every_permutation_by_hand(reversed_cost: int) -> None:
    for seed in range(5):
        learned, truth = random_graph(4, 0.4, seed), random_graph(4, 0.5, seed + 10)
        orders = [list(order) for order in permutations(range(4))]
        distances = [shd(learned[o][:, o], truth, reversed_cost=reversed_cost) for o in orders]
        scores = [edge_scores(learned[o][:, o], truth) for o in orders]
        best = shd_up_to_permutation(learned, truth, reversed_cost=reversed_cost)
        assert best.shd == min(distances)
        assert list(best.permutation) == orders[distances.index(min(distances))]
        aligned = edge_scores_up_to_permutation(learned, truth)
        assert aligned.scores == tuple(max(column) for column in zip(*scores, strict=True))
        assert list(aligned.permutation) == orders[scores.index(max(scores))]


def test_graphs_that_no_permutation_matches() -> None:
    chain, fork = graph(3, (0, 1), (1, 2)), graph(3, (0, 1), (0, 2))
    assert shd(chain, fork) == 2
    assert shd_up_to_permutation(chain, fork).shd == 1
    assert edge_scores_up_to_permutation(chain, fork).scores.f1 == 0.5


def test_no_nodes() -> None:
    assert shd_up_to_permutation(graph(0), graph(0)) == shd_up_to_permutation(graph(0), graph(0))
    assert edge_scores_up_to_permutation(graph(0), graph(0)).permutation == ()


@pytest.mark.parametrize("metric", [shd_up_to_permutation, edge_scores_up_to_permutation])
def test_too_many_nodes(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ValueError, match="adjacency must have at most 8 nodes, since all permutations are tried, got 9"
    ):
        metric(graph(9), graph(9))
