"""Precision, recall and F1 of edges."""

import pytest
import torch
from metric_graphs import graph, random_graph
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from causalvae_fast.metrics import EdgeScores, edge_scores


@pytest.mark.parametrize(
    ("learned", "truth", "expected"),
    [
        (graph(3, (0, 1)), graph(3, (0, 1)), (1, 1, 1)),
        (graph(3, (1, 0)), graph(3, (0, 1)), (0, 0, 0)),  # turned round
        (graph(3, (0, 1), (1, 2), (0, 2)), graph(3, (0, 1)), (1 / 3, 1, 1 / 2)),
        (graph(4, (0, 1)), graph(4, (0, 1), (1, 2), (2, 3), (0, 3)), (1, 1 / 4, 2 / 5)),
        (graph(3), graph(3, (0, 1)), (1, 0, 0)),
        (graph(3, (0, 1)), graph(3), (0, 1, 0)),
        (graph(3), graph(3), (1, 1, 1)),
    ],
)
def test_hand_worked(learned: Tensor, truth: Tensor, expected: tuple[float, float, float]) -> None:
    assert edge_scores(learned, truth) == pytest.approx(EdgeScores(*expected))


@pytest.mark.parametrize("d", [2, 5, 12])
def test_scikit_learn(d: int) -> None:
    for seed in range(5):
        learned, truth = random_graph(d, 0.5, seed), random_graph(d, 0.4, seed + 100)
        *expected, _ = precision_recall_fscore_support(
            truth.flatten().numpy(), learned.flatten().numpy(), average="binary", zero_division=1.0
        )
        assert edge_scores(learned, truth) == pytest.approx(EdgeScores(*expected))


def test_exchanging_the_graphs_exchanges_precision_and_recall() -> None:
    learned, truth = random_graph(9, 0.5, 0), random_graph(9, 0.2, 1)
    scores, exchanged = edge_scores(learned, truth), edge_scores(truth, learned)
    assert scores.precision == exchanged.recall != scores.recall == exchanged.precision
    assert scores.f1 == exchanged.f1


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match=r"^truth must be a boolean adjacency matrix"):
        edge_scores(graph(3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"^truth must have the shape of adjacency"):
        edge_scores(graph(3), graph(4))
