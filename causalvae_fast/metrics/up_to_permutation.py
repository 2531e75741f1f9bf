"""Graph metrics of latents whose order is not known: the best over all permutations of the nodes."""

from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_graphs
from causalvae_fast.metrics.edge_scores import EdgeScores, scores_of
from causalvae_fast.metrics.shd_within_frames import MAX_LATENTS, AlignedSHD, shd_within_frames


class AlignedEdgeScores(NamedTuple):
    """The scores under the best permutation, and that permutation.

    `permutation[k]` is the node of the learned graph that plays the role of node k of the true one, so that
    `adjacency[permutation][:, permutation]` is in the order of the truth.
    """

    scores: EdgeScores
    permutation: tuple[int, ...]


def shd_up_to_permutation(adjacency: Tensor, truth: Tensor, *, reversed_cost: int = 1) -> AlignedSHD:
    """The least `shd` over all permutations of the nodes of the learned graph. Exact, for at most 8 nodes.

    Relabelling nodes to match two graphs is a quadratic assignment problem, for which no fast exact method is
    known. With more nodes, or where names are wanted that do not flatter the graph, match the latents to known
    factors first: `mcc(...).assignment` is a permutation from their values, by linear assignment.

    Args:
        adjacency: the learned graph, boolean (d, d) with d <= 8, [i, j] true where i -> j.
        truth: the true graph, boolean (d, d), in the same convention.
        reversed_cost: what an edge that points the other way counts, 1 or 2, as in `shd`.

    Returns:
        The distance and the permutation that reaches it; of several, the first in lexicographic order.

    Raises:
        TypeError, ValueError: as in `shd`; ValueError if d is above 8.

    >>> learned = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    >>> shd_up_to_permutation(learned, learned.mT)
    AlignedSHD(shd=0, permutation=(2, 1, 0))
    """
    check_graphs(adjacency, truth, reversed_cost)
    _check_size(adjacency)
    if adjacency.numel() == 0:
        return AlignedSHD(0, ())
    return shd_within_frames(adjacency, truth, 1, adjacency.shape[0], reversed_cost=reversed_cost)


def edge_scores_up_to_permutation(adjacency: Tensor, truth: Tensor) -> AlignedEdgeScores:
    """The best `edge_scores` over all permutations of the nodes of the learned graph. Exact, for at most 8 nodes.

    Precision, recall and F1 all grow with the number of edges in common, so that one permutation is the best for
    each. With more nodes, see `shd_up_to_permutation`.

    Args:
        adjacency: the learned graph, boolean (d, d) with d <= 8, [i, j] true where i -> j.
        truth: the true graph, boolean (d, d), in the same convention.

    Returns:
        The scores and the permutation; of several, the first in lexicographic order.

    Raises:
        TypeError, ValueError: as in `edge_scores`; ValueError if d is above 8.
    """
    check_graphs(adjacency, truth)
    _check_size(adjacency)
    every = list(permutations(range(adjacency.shape[0])))
    orders = torch.tensor(every, dtype=torch.long, device="cpu")  # (d!, d)
    relabelled = adjacency.cpu()[orders.unsqueeze(2), orders.unsqueeze(1)]  # (d!, d, d)
    both = (relabelled & truth.cpu()).flatten(1).sum(1)  # (d!,)
    best = int(both.argmax())
    return AlignedEdgeScores(scores_of(int(both[best]), adjacency, truth), tuple(orders[best].tolist()))


def _check_size(adjacency: Tensor) -> None:
    if adjacency.shape[0] > MAX_LATENTS:
        raise ValueError(
            f"adjacency must have at most {MAX_LATENTS} nodes, since all permutations are tried, "
            f"got {adjacency.shape[0]}"
        )
