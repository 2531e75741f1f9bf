"""From masks (child, parent) to graphs [i, j] = i -> j."""

import sys

import pytest
import torch

from causalvae_fast.graph.convert import to_adjacency, to_networkx


def test_adjacency_is_the_transpose_of_the_mask() -> None:
    edges = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)  # 0 -> 1 -> 2
    adjacency = to_adjacency(edges)
    assert adjacency.nonzero().tolist() == [[0, 1], [1, 2]]
    assert adjacency.dtype == torch.bool
    assert adjacency.is_contiguous() or adjacency.mT.is_contiguous()
    edges[1, 0] = False  # no view of the mask
    assert adjacency[0, 1]


def test_graph_with_attributes_from_child_parent_matrices() -> None:
    adjacency = torch.zeros(3, 3, dtype=torch.bool)
    adjacency[0, 2] = adjacency[1, 2] = True
    probability = torch.zeros(3, 3)
    probability[2, 0], probability[2, 1] = 0.75, 1.0
    graph = to_networkx(adjacency, {"probability": probability})
    assert graph.is_directed()
    assert list(graph.nodes) == [0, 1, 2]
    assert dict(graph.edges) == {(0, 2): {"probability": 0.75}, (1, 2): {"probability": 1.0}}
    assert all(type(value) is float for _, _, value in graph.edges(data="probability"))


def test_names_and_isolated_nodes() -> None:
    adjacency = torch.zeros(3, 3, dtype=torch.bool)
    adjacency[0, 1] = True
    graph = to_networkx(adjacency, names=["x", "y", "z"])
    assert list(graph.nodes) == ["x", "y", "z"]
    assert list(graph.edges(data=True)) == [("x", "y", {})]


def test_adjacency_as_networkx_sees_it() -> None:
    import networkx

    adjacency = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    matrix = torch.from_numpy(networkx.to_numpy_array(to_networkx(adjacency), weight=None))
    assert torch.equal(matrix.bool(), adjacency)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "a"], ["a", "b", "c", "d"], []])
def test_names_that_do_not_fit(names: list[str]) -> None:
    with pytest.raises(ValueError, match="names must give a different name to each of the 3 nodes"):
        to_networkx(torch.zeros(3, 3, dtype=torch.bool), names=names)


def test_names_with_a_repeated_one_too_many() -> None:
    with pytest.raises(ValueError, match="names must give a different name to each of the 3 nodes"):
        to_networkx(torch.zeros(3, 3, dtype=torch.bool), names=["a", "a", "b", "c"])


def test_without_networkx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"pip install 'causalvae_fast\[plots\]'"):
        to_networkx(torch.zeros(3, 3, dtype=torch.bool))
