"""Precision, recall and F1 of the edges of a graph."""

from typing import NamedTuple

from torch import Tensor

from causalvae_fast.metrics._checks import check_graphs


class EdgeScores(NamedTuple):
    """Precision, recall and their harmonic mean, each from 0 to 1, the best."""

    precision: float
    recall: float
    f1: float


def edge_scores(adjacency: Tensor, truth: Tensor) -> EdgeScores:
    """How many of the learned edges are true, how many of the true ones are learned, and F1.

    precision = TP / learned edges, recall = TP / true edges, F1 = 2 TP / (learned + true edges), where TP counts
    the edges i -> j that both graphs have. An edge that points the other way is wrong: it counts in neither.
    Where a graph has no edges nothing can be wrong, or missed: the precision of an empty graph is 1, as is the
    recall where the truth is empty, and F1 where both are.

    Args:
        adjacency: boolean (d, d), [i, j] true where i -> j, no self-loops. As from `SEMPrior.adjacency`.
        truth: boolean (d, d), in the same convention.

    Raises:
        TypeError: if a matrix is not a boolean tensor.
        ValueError: if a matrix is not square, has a self-loop, or if the shapes differ.

    >>> import torch
    >>> learned = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    >>> edge_scores(learned, truth=torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool))
    EdgeScores(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    check_graphs(adjacency, truth)
    return scores_of(int((adjacency & truth).count_nonzero()), adjacency, truth)


def scores_of(both: int, adjacency: Tensor, truth: Tensor) -> EdgeScores:
    """The scores of graphs that have `both` edges in common."""
    learned, true = int(adjacency.count_nonzero()), int(truth.count_nonzero())
    return EdgeScores(
        precision=both / learned if learned else 1.0,
        recall=both / true if true else 1.0,
        f1=2 * both / (learned + true) if learned + true else 1.0,
    )
