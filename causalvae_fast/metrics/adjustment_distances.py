"""How often a graph gives the wrong causal effect: distances through the package gadjid."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalvae_fast.metrics._checks import check_graphs


class AdjustmentDistance(NamedTuple):
    """How many causal effects a graph gets wrong.

    Attributes:
        mistakes: ordered pairs (i, j) whose effect the learned graph gets wrong, from 0 to d (d - 1).
        normalised: the same divided by d (d - 1).
    """

    mistakes: int
    normalised: float


def sid(adjacency: Tensor, truth: Tensor) -> AdjustmentDistance:
    """Structural intervention distance of two directed acyclic graphs.

    For each ordered pair (i, j): is p(x_j | do(x_i)) right in the true graph if it is computed by adjusting for
    the parents that i has in the learned one? Not symmetric. A graph with superfluous edges that respects the
    order of the true one has distance 0.

    Args:
        adjacency: the learned graph, boolean (d, d), [i, j] true where i -> j, acyclic.
        truth: the true graph, boolean (d, d), in the same convention, acyclic.

    Raises:
        ImportError: if gadjid is not installed: pip install 'causalvae_fast[metrics]'.
        TypeError: if a matrix is not a boolean tensor.
        ValueError: if a matrix is not square, has a self-loop or a cycle, or if the shapes differ.

    Source: Peters and Buehlmann, Structural intervention distance for evaluating causal graphs (2015).
    """
    check_graphs(adjacency, truth)
    gadjid = _gadjid("sid")
    for name, graph in (("adjacency", adjacency), ("truth", truth)):
        _check_acyclic(name, graph)
    if len(truth) < 2:
        return AdjustmentDistance(0, 0.0)
    normalised, mistakes = gadjid.sid(_coded(truth), _coded(adjacency), edge_direction="from row to column")
    return AdjustmentDistance(mistakes, normalised)


def parent_aid(adjacency: Tensor, truth: Tensor) -> AdjustmentDistance:
    """Parent adjustment identification distance of graphs, directed or completed partially directed.

    As `sid`, to which it is equal for directed acyclic graphs, but an edge may be undirected, there in both
    directions, in either graph: where the learned one does not say what the effect is, and the true one does,
    that is a mistake too.

    Args:
        adjacency: the learned graph, boolean (d, d), [i, j] true where i -> j, and [j, i] too where the direction
            is open. With undirected edges it must be a CPDAG, which is not checked.
        truth: the true graph, boolean (d, d), in the same convention.

    Raises:
        ImportError: if gadjid is not installed: pip install 'causalvae_fast[metrics]'.
        TypeError: if a matrix is not a boolean tensor.
        ValueError: if a matrix is not square, has a self-loop or a cycle of directed edges, or if the shapes
            differ.

    Source: Henckel, Wuertzen, Weichwald, Adjustment identification distance: a gadjid for causal structure
    learning (2024).
    """
    check_graphs(adjacency, truth)
    gadjid = _gadjid("parent_aid")
    for name, graph in (("adjacency", adjacency), ("truth", truth)):
        _check_acyclic(name, graph & ~graph.mT)
    if len(truth) < 2:
        return AdjustmentDistance(0, 0.0)
    normalised, mistakes = gadjid.parent_aid(_coded(truth), _coded(adjacency), edge_direction="from row to column")
    return AdjustmentDistance(mistakes, normalised)


def _gadjid(function: str) -> ModuleType:
    try:
        import gadjid
    except ModuleNotFoundError as error:
        raise ImportError(f"{function} needs gadjid: pip install 'causalvae_fast[metrics]'") from error
    return gadjid


def _check_acyclic(name: str, graph: Tensor) -> None:
    left = torch.ones(len(graph), dtype=torch.bool, device="cpu")
    for _ in range(len(graph)):
        left &= (graph.cpu() & left.unsqueeze(1)).any(0)  # with a parent that is left
    if bool(left.any()):
        raise ValueError(f"{name} has a cycle, through some of the nodes {left.nonzero().flatten().tolist()}")


def _coded(graph: Tensor) -> NDArray[np.int8]:
    """gadjid's code: 1 for a directed edge, 2 for an undirected one."""
    coded = graph.cpu().to(torch.int8)
    return np.ascontiguousarray((coded + (graph & graph.mT).cpu().to(torch.int8)).numpy())
