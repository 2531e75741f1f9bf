"""From masks (child, parent), as in z = A z + b, to graphs as a user gets them: [i, j] is the edge i -> j.

The only place where the two conventions meet.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import networkx


def to_adjacency(edges: Tensor) -> Tensor:
    """Adjacency (d, d), [i, j] true where i -> j, from a boolean mask `edges` (d, d), (child, parent)."""
    return edges.bool().mT.clone()


def to_networkx(
    adjacency: Tensor,  # (d, d), [i, j] true where i -> j
    attributes: dict[str, Tensor] | None = None,  # of the edges: name -> (d, d), (child, parent)
    names: Sequence[Hashable] | None = None,
) -> networkx.DiGraph:
    """Directed graph with a node for each variable and an edge for each true entry of `adjacency`.

    Raises:
        ImportError: if networkx is not installed.
        ValueError: if `names` does not give one name to each node.
    """
    try:
        import networkx
    except ImportError as error:
        raise ImportError(
            "to_networkx needs networkx: pip install 'causalvae_fast[plots]' (or networkx)"
        ) from error
    d = adjacency.shape[0]
    nodes = list(range(d)) if names is None else list(names)
    if len(nodes) != d or len(set(nodes)) != d:
        raise ValueError(f"names must give a different name to each of the {d} nodes, got {nodes}")
    graph: networkx.DiGraph = networkx.DiGraph()
    graph.add_nodes_from(nodes)
    for parent, child in adjacency.nonzero().tolist():
        values = {name: value[child, parent].item() for name, value in (attributes or {}).items()}
        graph.add_edge(nodes[parent], nodes[child], **values)
    return graph
