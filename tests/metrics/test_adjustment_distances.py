"""SID and parent-AID through gadjid, against the definition by d-separation in networkx."""

import sys

import networkx as nx
import pytest
from metric_graphs import graph, random_dag
from torch import Tensor

from causalvae_fast.metrics import parent_aid, sid


def sid_by_definition(adjacency: Tensor, truth: Tensor) -> int:
    """Peters and Buehlmann (2015), Proposition 6, pair by pair."""
    learned, true = (nx.from_numpy_array(g.int().numpy(), create_using=nx.DiGraph) for g in (adjacency, truth))
    mistakes = 0
    for i in true:
        adjusted = set(learned.predecessors(i))
        for j in set(true) - {i}:
            if j in adjusted:  # the learned graph says that i has no effect on j
                mistakes += j in nx.descendants(true, i)
            else:
                mistakes += not valid_adjustment(true, i, j, adjusted)
    return mistakes


def valid_adjustment(graph: nx.DiGraph, i: int, j: int, adjusted: set[int]) -> bool:
    """No descendant of a node on a causal path from i to j is in the set, and it blocks every other path."""
    on_paths = {k for path in nx.all_simple_paths(graph, i, j) for k in path[1:]}
    if adjusted & {k for node in on_paths for k in {node} | nx.descendants(graph, node)}:
        return False
    without = graph.copy()
    without.remove_edges_from([(i, k) for k in on_paths if graph.has_edge(i, k)])
    return bool(nx.is_d_separator(without, {i}, {j}, adjusted))


@pytest.mark.parametrize("d", [2, 4, 6])
def test_definition_on_random_graphs(d: int) -> None:
    for seed in range(10):
        learned, truth = random_dag(d, 0.4, seed), random_dag(d, 0.5, seed + 50)
        expected = sid_by_definition(learned, truth)
        assert sid(learned, truth) == (expected, pytest.approx(expected / (d * (d - 1))))
        assert parent_aid(learned, truth) == sid(learned, truth)


def test_superfluous_edges_in_the_right_order_do_no_harm() -> None:
    assert sid(graph(3, (0, 1), (0, 2), (1, 2)), graph(3, (0, 1), (1, 2))).mistakes == 0
    assert sid(graph(3, (0, 1), (1, 2)), graph(3, (0, 1), (0, 2), (1, 2))).mistakes > 0


def test_an_edge_turned_round() -> None:
    """Both effects are wrong: that of 0 on 1, which is taken for none, and that of 1 on 0, which is none."""
    assert sid(graph(2, (1, 0)), graph(2, (0, 1))) == (2, 1.0)


def test_an_open_direction() -> None:
    open_direction = graph(2, (0, 1), (1, 0))
    assert parent_aid(open_direction, open_direction).mistakes == 0
    assert parent_aid(open_direction, graph(2, (0, 1))).mistakes == 2


@pytest.mark.parametrize("d", [0, 1])
def test_without_pairs(d: int) -> None:
    assert sid(graph(d), graph(d)) == parent_aid(graph(d), graph(d)) == (0, 0.0)


def test_cycles() -> None:
    cycle = graph(4, (0, 1), (1, 2), (2, 0))
    with pytest.raises(ValueError, match=r"adjacency has a cycle, through some of the nodes \[0, 1, 2\]"):
        sid(cycle, graph(4))
    with pytest.raises(ValueError, match="truth has a cycle"):
        parent_aid(graph(4), cycle)
    with pytest.raises(ValueError, match="adjacency has a cycle"):
        sid(graph(2, (0, 1), (1, 0)), graph(2))


def test_without_gadjid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gadjid", None)
    for metric in (sid, parent_aid):
        with pytest.raises(ImportError, match=r"needs gadjid: pip install 'causalvae_fast\[metrics\]'"):
            metric(graph(2), graph(2))
