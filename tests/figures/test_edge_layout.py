"""The routes of edges and the places of their labels."""

import numpy as np
import pytest

from causalvae_fast.figures._edge_layout import Curve, place_labels, route

RADIUS = 0.29
T = np.linspace(0, 1, 101)


def grid(frames: int, latents: int) -> np.ndarray:
    return np.array([(2.1 * t, -1.2 * k) for t in range(frames) for k in range(latents)])


def gap(curve: Curve, node: np.ndarray) -> float:
    """Distance between a curve and the rim of a node."""
    return float(np.linalg.norm(curve.at(T) - node, axis=1).min()) - RADIUS


def height(curve: Curve) -> float:
    """Distance of the middle of a curve from its chord's."""
    return float(np.linalg.norm(curve.at(0.5) - (curve.start + curve.end) / 2))


def test_part_of_a_curve() -> None:
    curve = Curve(np.array([0.0, 0.0]), np.array([1.0, 3.0]), np.array([4.0, 1.0]))
    part = curve.between(0.2, 0.7)
    np.testing.assert_allclose(part.at(T), curve.at(0.2 + 0.5 * T), rtol=1e-12, atol=1e-12)


def test_edges_run_from_rim_to_rim() -> None:
    nodes = grid(3, 2)
    edges = [(0, 2), (0, 4), (1, 4)]
    for (parent, child), curve in zip(edges, route(edges, nodes, RADIUS), strict=True):
        assert np.linalg.norm(curve.start - nodes[parent]) == pytest.approx(RADIUS, abs=0.01)
        assert np.linalg.norm(curve.end - nodes[child]) == pytest.approx(RADIUS, abs=0.01)


def test_an_edge_to_the_next_column_is_straight() -> None:
    (curve,) = route([(0, 3)], grid(2, 2), RADIUS)
    assert height(curve) == pytest.approx(0)


@pytest.mark.parametrize("frames", [3, 4, 6])
@pytest.mark.parametrize("latents", [1, 2, 4])
def test_a_single_edge_clears_every_node(frames: int, latents: int) -> None:
    nodes = grid(frames, latents)
    d = frames * latents
    for parent in range(latents):
        for child in range(latents, d):
            (curve,) = route([(parent, child)], nodes, RADIUS)
            others = [node for i, node in enumerate(nodes) if i not in (parent, child)]
            assert all(gap(curve, node) > 0 for node in others)


def test_edges_over_the_same_way_are_told_apart() -> None:
    nodes = grid(3, 1)
    to_next, over, from_next = route([(0, 1), (0, 2), (1, 2)], nodes, RADIUS)
    assert max(height(to_next), height(from_next)) < 1e-12
    assert height(over) > 0.3


def test_labels_of_the_sprite_graph_do_not_overlap() -> None:
    nodes = grid(3, 4)
    edges = [(0, 8), (4, 8), (1, 9), (5, 9)]
    curves = route(edges, nodes, RADIUS)
    size = (0.5, 0.2)
    centres = place_labels(curves, [size] * 4, nodes, RADIUS)
    for i, a in enumerate(centres):
        assert np.linalg.norm(curves[i].at(T) - a, axis=1).min() < 0.03  # on its own edge
        assert all(gap(Curve(a, a, a), node) > 0 for node in nodes)
        for b in centres[:i]:
            assert (np.abs(a - b) >= size).any()


def test_labels_of_crossing_edges_make_way() -> None:
    nodes = grid(2, 2)
    curves = route([(0, 3), (1, 2)], nodes, RADIUS)
    a, b = place_labels(curves, [(0.5, 0.2)] * 2, nodes, RADIUS)
    assert (np.abs(a - b) >= (0.5, 0.2)).any()


def test_no_edges() -> None:
    assert route([], grid(2, 2), RADIUS) == []
    assert place_labels([], [], grid(2, 2), RADIUS) == []


def test_a_dense_graph_clears_its_nodes_too() -> None:
    nodes = grid(4, 3)
    edges = [(a, b) for a in range(12) for b in range(12) if a // 3 < b // 3]
    assert len(edges) == 54
    curves = route(edges, nodes, RADIUS)
    for (parent, child), curve in zip(edges, curves, strict=True):
        assert all(gap(curve, node) > 0 for i, node in enumerate(nodes) if i not in (parent, child))
    assert len(place_labels(curves, [(0.5, 0.2)] * 54, nodes, RADIUS)) == 54
