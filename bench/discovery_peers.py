"""Other methods of causal discovery, and the simulator of the data that all get: gCastle and causal-learn.

Each method takes X (n, d) and gives a boolean adjacency matrix, [i, j] true where i -> j; an edge whose direction
the method leaves open is there in both directions.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Data = NDArray[np.float64]
Graph = NDArray[np.bool_]

NODES = EDGES = 4  # an expected degree of 2


def simulate(sem: str, seed: int, samples: int) -> tuple[Data, Graph]:
    """A random graph of 4 nodes, with 4 edges in expectation, and data (n, 4) of gCastle's mechanisms.

    Noise is N(0, 1). "mlp": a sigmoid layer of 100 units with weights of 0.5 to 2 in size. "gp": a function drawn
    from a Gaussian process with an RBF kernel of length 1, over all parents together.
    """
    from castle.datasets import DAG, IIDSimulation

    logging.disable(logging.INFO)
    weights = np.asarray(DAG.erdos_renyi(NODES, EDGES, weight_range=(0.5, 2.0), seed=seed))
    _seed(seed)
    data = IIDSimulation(weights, n=samples, method="nonlinear", sem_type=sem)
    return data.X, data.B.astype(bool)


def notears_mlp(X: Data, seed: int) -> Graph:
    """NOTEARS with one hidden layer of 10 units for each node, all as gCastle has it by default."""
    from castle.algorithms import NotearsNonlinear

    logging.disable(logging.INFO)
    _seed(seed)
    model = NotearsNonlinear()
    model.learn(X)
    return np.asarray(model.causal_matrix).astype(bool)


def pc_fisher_z(X: Data, seed: int) -> Graph:
    """PC with tests of partial correlation at a level of 0.05."""
    return _pc(X, seed, "fisherz")


def pc_kernel(X: Data, seed: int) -> Graph:
    """PC with a randomised kernel test of conditional independence (RCIT) at a level of 0.05."""
    return _pc(X, seed, "rcit")


def _pc(X: Data, seed: int, test: str) -> Graph:
    from causallearn.search.ConstraintBased.PC import pc

    _seed(seed)
    marks = pc(X, 0.05, test, show_progress=False).G.graph  # [i, j]: the mark at i of the edge between i and j
    # i -> j has a tail at i and a head at j; i - j has tails at both, and i <-> j, a conflict, has heads at both.
    return np.asarray((marks != 0) & ((marks == -1) | (marks.T == 1)))


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, the libraries draw from the global generators
    torch.manual_seed(seed)


PEERS: dict[str, Callable[[Data, int], Graph]] = {
    "NOTEARS-MLP": notears_mlp,
    "PC, Fisher z": pc_fisher_z,
    "PC, RCIT": pc_kernel,
}
