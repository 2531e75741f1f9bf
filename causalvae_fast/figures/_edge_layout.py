"""Where the edges of a drawn graph run, and where their labels stand. Lengths are in inches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SAMPLES = np.linspace(0.0, 1.0, 33)
# The arcs to try: how far the middle stands off the straight line, and where along it the arc is highest.
_BENDS = (0.0, *(side * 0.15 * step for step in range(1, 13) for side in (1, -1)))
_SKEWS = (0.5, 0.3, 0.7)
_CROWD = 60  # with more edges than this, they cannot keep off one another, and trying takes long
_LABEL_PLACES = (0.5, 0.43, 0.57, 0.36, 0.64, 0.3, 0.7, 0.24, 0.76)  # along the curve, the middle first


@dataclass(frozen=True)
class Curve:
    """A quadratic Bezier curve from `start` over `control` to `end`, each (2,)."""

    start: np.ndarray
    control: np.ndarray
    end: np.ndarray

    def at(self, t: np.ndarray | float) -> np.ndarray:
        """Points (..., 2) at the parameters t (...) in [0, 1]."""
        t = np.asarray(t)[..., None]
        return (1 - t) ** 2 * self.start + 2 * t * (1 - t) * self.control + t**2 * self.end

    def between(self, t0: float, t1: float) -> Curve:
        """The part from t0 to t1, itself a quadratic Bezier curve."""
        # The blossom of the curve at (t0, t1) is the control point of that part.
        control = (
            (1 - t0) * (1 - t1) * self.start + ((1 - t0) * t1 + t0 * (1 - t1)) * self.control + t0 * t1 * self.end
        )
        return Curve(self.at(t0), control, self.at(t1))


def route(
    edges: list[tuple[int, int]],  # E pairs of nodes
    nodes: np.ndarray,  # (d, 2) their centres
    radius: float,  # of a node
) -> list[Curve]:
    """A curve for each edge, from rim to rim, bent as little as keeps it off other nodes and other edges.

    Short edges are placed first, so that they stay straight and the long ones go round them.
    """
    lengths = [float(np.linalg.norm(nodes[b] - nodes[a])) for a, b in edges]
    curves: list[Curve | None] = [None] * len(edges)
    drawn = np.empty((0, 2))  # points of the curves that are placed already
    for index in sorted(range(len(edges)), key=lambda i: (lengths[i], edges[i])):
        parent, child = edges[index]
        others = np.delete(nodes, [parent, child], axis=0)
        arcs = [_bent(nodes[parent], nodes[child], bend, skew) for bend in _BENDS for skew in _SKEWS]
        best = min(arcs, key=lambda curve: _crowding(curve, others, drawn, radius))
        curves[index] = _trim(best, radius)
        if len(edges) <= _CROWD:
            drawn = np.concatenate([drawn, best.at(_SAMPLES[4:-4:2])])
    return [curve for curve in curves if curve is not None]


def place_labels(
    curves: list[Curve],
    sizes: list[tuple[float, float]],  # width and height of each label; (0, 0) for none
    nodes: np.ndarray,  # (d, 2)
    radius: float,
) -> list[np.ndarray]:
    """A centre (2,) for each label on its curve, off the nodes, the other labels and the other curves."""
    points = np.array([curve.at(_SAMPLES) for curve in curves])  # (E, samples, 2)
    # Boxes to keep off, as centres and half sizes: the nodes, then the labels placed so far.
    boxes, box_halves = nodes, np.full(nodes.shape, radius)
    centres = []
    for index, curve in enumerate(curves):
        half = np.array(sizes[index]) / 2
        foreign = np.delete(points, index, axis=0).reshape(-1, 2)
        places = [curve.at(t) for t in _LABEL_PLACES]
        costs = [
            60 * _overlaps(place, half, boxes, box_halves).sum()
            + np.count_nonzero(np.all(np.abs(foreign - place) < half + 0.03, axis=1))
            for place in places
        ]
        centre = places[int(np.argmin(costs))]  # the first of equally good ones: the nearest to the middle
        if half.any():
            boxes, box_halves = np.vstack([boxes, centre]), np.vstack([box_halves, half])
        centres.append(centre)
    return centres


def _bent(start: np.ndarray, end: np.ndarray, bend: float, skew: float) -> Curve:
    """The arc that stands `bend` to the left of the straight line (above it, if it runs to the right).

    Its control point lies over the share `skew` of the line: 0.5 for a symmetric arc.
    """
    along = end - start
    normal = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    # The middle of a quadratic curve lies half-way between its chord and its control point.
    return Curve(start, start + skew * along + 2 * bend * normal, end)


def _trim(curve: Curve, radius: float) -> Curve:
    """The part of a curve between two centres that lies outside both nodes."""
    t = np.linspace(0.0, 1.0, 1001)
    points = curve.at(t)
    outside = (np.linalg.norm(points - curve.start, axis=1) >= radius) & (
        np.linalg.norm(points - curve.end, axis=1) >= radius
    )
    if not outside.any():
        return curve
    return curve.between(float(t[outside][0]), float(t[outside][-1]))


def _crowding(curve: Curve, others: np.ndarray, drawn: np.ndarray, radius: float) -> float:
    """How badly a curve runs through other nodes or along other curves, and how much it is bent."""
    points = curve.at(_SAMPLES)
    clearance = radius + 0.22  # room for a label on the curve
    through_nodes = np.maximum(clearance - _distances(points, others), 0).sum()
    middle = points[4:-4:2]
    along_edges = np.maximum(0.16 - _distances(middle, drawn), 0).sum()
    # Zero for a straight line with even spacing, so that arcs are no higher and no more skewed than need be.
    bend = float(np.linalg.norm(curve.at(0.5) - (curve.start + curve.end) / 2))
    return float(40 * through_nodes + along_edges + 1.2 * bend)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances (n, m) between points (n, 2) and (m, 2)."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def _overlaps(centre: np.ndarray, half: np.ndarray, boxes: np.ndarray, box_halves: np.ndarray) -> np.ndarray:
    """Shares (m,) of one box that each of the others (m, 2) covers."""
    sides = np.minimum(centre + half, boxes + box_halves) - np.maximum(centre - half, boxes - box_halves)
    area = np.prod(2 * half)
    return np.prod(np.maximum(sides, 0), axis=1) / area if area else np.zeros(len(boxes))
