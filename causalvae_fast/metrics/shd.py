"""Structural Hamming distance between two graphs."""

from torch import Tensor

from causalvae_fast.metrics._checks import check_graphs


def shd(adjacency: Tensor, truth: Tensor, *, reversed_cost: int = 1) -> int:
    """Structural Hamming distance: the edges to add, remove or turn round to get from one graph to the other.

    A missing edge and a superfluous one count 1 each. An edge that points the other way counts
    `reversed_cost`: 1, as one edge to turn round (Tsamardinos et al.; the default), or 2, as one to remove
    and one to add (the number of entries in which the matrices differ). Between a pair of nodes joined in
    both directions in one graph and in one direction in the other, one edge is missing or superfluous.

    Args:
        adjacency: boolean (d, d), [i, j] true where i -> j, no self-loops. As from `SEMPrior.adjacency`.
        truth: boolean (d, d), in the same convention.
        reversed_cost: 1 or 2.

    Returns:
        An integer from 0 (the same graph) to d (d - 1). Symmetric in the two graphs.

    Raises:
        TypeError: if a matrix is not a boolean tensor.
        ValueError: if a matrix is not square, has a self-loop, or if the shapes differ; if `reversed_cost` is
            neither 1 nor 2.

    Source: Tsamardinos, Brown, Aliferis, The max-min hill-climbing Bayesian network structure learning
    algorithm (2006).

    >>> import torch
    >>> learned = torch.tensor([[0, 1], [0, 0]], dtype=torch.bool)
    >>> shd(learned, learned.mT), shd(learned, learned.mT, reversed_cost=2)
    (1, 2)
    """
    check_graphs(adjacency, truth, reversed_cost)
    return count_differences(adjacency, truth, reversed_cost)


def count_differences(adjacency: Tensor, truth: Tensor, reversed_cost: int) -> int:
    """`shd` of arguments that are known to be valid."""
    differing = adjacency ^ truth
    if reversed_cost == 2:
        return int(differing.count_nonzero())
    # A reversed edge differs in two entries, [i, j] and [j, i], and only the learned graph has it at [i, j].
    reversed_edges = differing & differing.mT & adjacency & truth.mT
    return int(differing.count_nonzero() - reversed_edges.count_nonzero())
