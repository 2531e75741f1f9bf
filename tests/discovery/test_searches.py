"""The exhaustive search, and the greedy one over orders, on random local scores."""

import pytest
from tables import dags_one_by_one, is_acyclic, random_score, tree_score

from causalvae_fast.discovery.discover import _with_alternatives
from causalvae_fast.discovery.exhaustive import ExhaustiveSearch
from causalvae_fast.discovery.graphs import edges_of, topological_order
from causalvae_fast.discovery.orders import OrderSearch
from causalvae_fast.discovery.search import Limits


@pytest.mark.parametrize("seed", range(5))
def test_exhaustive_is_the_best_of_all(seed: int) -> None:
    score = random_score(4, seed)
    ordered = sorted(dags_one_by_one(4), key=score, reverse=True)
    search = ExhaustiveSearch(score, Limits(3, 0, 0))
    assert search.graphs == 543
    assert search.ranking(20) == ordered[:20]
    for i, j in edges_of(ordered[0]):
        assert search.best_with_edge(j, i) == next(graph for graph in ordered if graph[i] >> j & 1)


def test_exhaustive_with_a_limit_on_parents() -> None:
    score = random_score(4, 0, penalty=-2.0)  # edges are welcome
    best = ExhaustiveSearch(score, Limits(3, 0, 0)).ranking(1)[0]
    assert max(bits.bit_count() for bits in best) == 3
    search = ExhaustiveSearch(score, Limits(1, 0, 0))
    allowed = [graph for graph in dags_one_by_one(4) if max(bits.bit_count() for bits in graph) <= 1]
    assert search.ranking(1)[0] == max(allowed, key=score)
    assert {bits.bit_count() for _, bits in score.local.asked if bits} >= {1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(10))
def test_orders_end_in_a_local_maximum(seed: int) -> None:
    score = random_score(6, seed)
    search = OrderSearch(score, Limits(5, 2, 0))
    best = search.ranking(1)[0]
    assert is_acyclic(best)
    order = topological_order(best)
    for node, bits in enumerate(best):
        before = sum(1 << j for j in order[: order.index(node)])
        changed = [bits & ~(1 << j) for j in range(6)]
        if node == order[-1] or bits == before:
            changed += [bits | 1 << j for j in range(6) if before >> j & 1]
        assert all(score.of_node(node, other) <= score.of_node(node, bits) for other in changed)


@pytest.mark.parametrize("seed", range(5))
def test_orders_keep_the_edge_that_they_must(seed: int) -> None:
    score = random_score(6, seed, penalty=0.5)
    search = OrderSearch(score, Limits(5, 0, 0))
    for parent, child in edges_of(search.ranking(1)[0]):
        turned = search.best_with_edge(child, parent)
        assert (child, parent) in edges_of(turned)
        assert is_acyclic(turned)


@pytest.mark.parametrize("seed", range(8))
def test_orders_turn_any_edge_of_a_linear_gaussian_tree_at_no_loss(seed: int) -> None:
    """All trees with the same edges, whatever their root, fit equally well."""
    score = tree_score(8, seed, penalty=0.01)
    best, turned = _with_alternatives(OrderSearch(score, Limits(7, 1, 0)))
    assert len(edges_of(best)) == 7
    assert [score(graph) for graph in turned.values()] == pytest.approx([score(best)] * 7, abs=1e-9)


def test_orders_are_close_to_the_best_of_all() -> None:
    """Greedy, so not always the best; with restarts, in most cases."""
    found = 0
    for seed in range(10):
        score = random_score(4, seed)
        best = ExhaustiveSearch(score, Limits(3, 0, 0)).ranking(1)[0]
        greedy = OrderSearch(score, Limits(3, 5, 0)).ranking(1)[0]
        assert score(greedy) <= score(best) + 1e-12
        found += greedy == best
    assert found >= 5


@pytest.mark.parametrize("most", [0, 1, 2])
def test_orders_with_a_limit_on_parents(most: int) -> None:
    search = OrderSearch(random_score(6, 0, penalty=-2.0), Limits(most, 1, 0))
    best = search.ranking(1)[0]
    assert max(bits.bit_count() for bits in best) == most
    for parent, child in edges_of(best):
        assert max(bits.bit_count() for bits in search.best_with_edge(child, parent)) <= most


def test_restarts_are_seeded() -> None:
    first, second = (OrderSearch(random_score(7, 3), Limits(6, 4, seed=9)) for _ in range(2))
    assert first.ranking(50) == second.ranking(50)
    assert OrderSearch(random_score(7, 3), Limits(6, 0, 0)).graphs < first.graphs
