"""The learned graph, of one time step or of several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causalvae_fast.figures import _canvas
from causalvae_fast.figures._edge_layout import Curve, place_labels, route

if TYPE_CHECKING:
    import networkx
    from matplotlib.axes import Axes

# In inches, the unit of the axes.
_RADIUS = 0.29
_COLUMN = 2.1
_ROW = 1.2
_MARGIN = 0.25
_HEADER = 0.4
_LEGEND = 0.35
_MIN_WIDTH = 4.2


def draw_graph(graph: networkx.DiGraph, frames: int, latents: int, path: str | Path) -> Path:
    """Draw a graph: a column for each time step, a row for each latent; of one time step alone, a row of nodes.

    To be seen: which latent of which frame influences which, and how much. Node `t * latents + k` is written
    z with the subscripts t + 1, k + 1 (k + 1 alone if there is one time step), above its number in square brackets
    (the one that `do=` takes). An edge carries its `coefficient`, if it has one, and is blue where that is
    positive, vermillion where it is negative; an edge with a low `probability` is thin and pale. Edges over more
    than one time step are curved round the nodes between. Nodes with no edge are grey.

    Args:
        graph: its nodes are 0 .. frames * latents - 1. As from `SEMPrior.to_networkx()`.
        frames: number of time steps, at least 1.
        latents: variables in each time step, at least 1.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if `frames` or `latents` is below 1, or if the nodes of `graph` are others or it has a
            self-loop.
    """
    for name, value in (("frames", frames), ("latents", latents)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    d = frames * latents
    if set(graph.nodes) != set(range(d)):
        raise ValueError(
            f"graph must have the nodes 0 to {d - 1} (frames * latents = {d}), got {sorted(graph.nodes, key=str)}"
        )
    edges = list(graph.edges)
    if any(parent == child for parent, child in edges):
        raise ValueError("graph must have no self-loop")

    if frames == 1:  # causes to the left of their effects
        nodes = np.array([(k * _COLUMN / 1.4, 0.0) for k in range(latents)])
    else:
        nodes = np.array([(t * _COLUMN, -k * _ROW) for t in range(frames) for k in range(latents)])
    curves = route(edges, nodes, _RADIUS)
    labels = [_label(graph.edges[edge].get("coefficient")) for edge in edges]
    sizes = [(0.085 * len(label) + 0.06, 0.2) if label else (0.0, 0.0) for label in labels]
    centres = place_labels(curves, sizes, nodes, _RADIUS)

    # The figure is as large as what is in it: long edges may run outside the columns and rows.
    drawn = np.concatenate([nodes - _RADIUS, nodes + _RADIUS, *(curve.at(np.linspace(0, 1)) for curve in curves)])
    (left, bottom), (right, top) = drawn.min(0) - _MARGIN, drawn.max(0) + _MARGIN
    bottom -= _LEGEND
    top += _HEADER if frames > 1 else 0
    spare = max(_MIN_WIDTH - (right - left), 0) / 2
    left, right = left - spare, right + spare

    figure = _canvas.new_figure(right - left, top - bottom)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for t in range(frames if frames > 1 else 0):
        axes.text(t * _COLUMN, top - _MARGIN, f"$t = {t + 1}$", size=13, color=_canvas.INK, ha="center", va="top")
    for edge, curve, label, centre in zip(edges, curves, labels, centres, strict=True):
        colour = _colour(graph.edges[edge].get("coefficient"))
        _draw_edge(axes, curve, colour, float(graph.edges[edge].get("probability", 1.0)))
        if label:
            _draw_label(axes, centre, label, colour)
    isolated = [graph.degree(node) == 0 for node in range(d)]
    for node, centre in enumerate(nodes):
        _draw_node(axes, centre, node, latents, frames > 1, isolated[node])
    _draw_legend(axes, (left + right) / 2, bottom + _MARGIN, signed=any(labels), isolated=any(isolated))
    return _canvas.save(figure, path)


def _label(coefficient: float | None) -> str:
    # The typographic minus is as wide as a digit; a hyphen is lost on the line.
    return "" if coefficient is None else f"{coefficient:z.2f}".replace("-", "\N{MINUS SIGN}")


def _colour(coefficient: float | None) -> str:
    if coefficient is None:
        return _canvas.INK
    return _canvas.VERMILLION if coefficient < 0 else _canvas.BLUE


def _draw_edge(axes: Axes, curve: Curve, colour: str, probability: float) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    outline = Outline(
        [tuple(curve.start), tuple(curve.control), tuple(curve.end)],
        [Outline.MOVETO, Outline.CURVE3, Outline.CURVE3],
    )
    axes.add_patch(
        FancyArrowPatch(
            path=outline,
            arrowstyle="-|>,head_length=6,head_width=3",
            mutation_scale=1,
            color=colour,
            linewidth=0.8 + 1.2 * probability,
            alpha=0.3 + 0.7 * probability,
            joinstyle="miter",
            zorder=1,
        )
    )


def _draw_label(axes: Axes, centre: np.ndarray, label: str, colour: str) -> None:
    axes.text(
        float(centre[0]),
        float(centre[1]),
        label,
        size=10,
        color=colour,
        ha="center",
        va="center",
        zorder=2,
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
    )


def _draw_node(axes: Axes, centre: np.ndarray, node: int, latents: int, timed: bool, isolated: bool) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(
        Circle(
            (float(centre[0]), float(centre[1])),
            _RADIUS,
            facecolor="#FAFAFA" if isolated else "white",
            edgecolor=_canvas.PALE_GREY if isolated else _canvas.INK,
            linewidth=1.0 if isolated else 1.4,
            zorder=3,
        )
    )
    ink = _canvas.GREY if isolated else _canvas.INK
    x, y = centre
    subscript = f"{node // latents + 1},{node % latents + 1}" if timed else f"{node + 1}"
    axes.text(x, y + 0.05, f"$z_{{{subscript}}}$", size=13, color=ink, ha="center", va="center", zorder=4)
    axes.text(x, y - 0.155, f"[{node}]", size=6.5, color=_canvas.GREY, ha="center", va="center", zorder=4)


def _draw_legend(axes: Axes, x: float, y: float, signed: bool, isolated: bool) -> None:
    """A line at the foot, centred at x, that explains the colours that occur."""
    entries: list[tuple[str, str, str]] = []  # text, colour, marker
    if signed:
        entries = [("positive", _canvas.BLUE, "_"), ("negative coefficient", _canvas.VERMILLION, "_")]
    if isolated:
        entries.append(("no edge", _canvas.GREY, "o"))
    widths = [0.07 * len(text) + 0.5 for text, _, _ in entries]
    x -= sum(widths) / 2
    for (text, colour, marker), width in zip(entries, widths, strict=True):
        axes.plot(
            x + 0.15,
            y,
            marker,
            color=colour,
            markersize=14 if marker == "_" else 7,
            mew=2 if marker == "_" else 1,
            mfc="#FAFAFA",
        )
        axes.text(x + 0.3, y - 0.01, text, size=9, color=_canvas.INK, va="center")
        x += width
