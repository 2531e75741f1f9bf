"""The figures of a sweep: what its runs came to against a setting, medians and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from causalvae_fast.figures import _canvas
from causalvae_fast.training.results import FINISHED, Record, accuracies, by_configuration, varying

_PANEL = (4.6, 3.2)  # inches
_COLOURS = (_canvas.BLUE, _canvas.VERMILLION, _canvas.GREY)
_PENALTY = "edge_weight"
_LOGARITHMIC = 5.0  # the range of positive values from which an axis is logarithmic


class Panel(NamedTuple):
    """Curves over one axis."""

    title: str
    curves: Mapping[str, Mapping[Any, Sequence[float]]]
    """Name -> value of the setting -> values of the runs with it."""


def draw_sweep_figures(records: Sequence[Record], folder: Path, over: str | None = None) -> list[Path]:
    """Accuracy of reconstructions, and structural Hamming distance, against a setting (figures 10 and 11 of the
    paper, where it is the sparsity coefficient); returns the files.

    Only finished runs are drawn. The distance is left out where runs have none.

    Args:
        records: the runs of a sweep.
        folder: where the files go.
        over: the setting; by default the only one in which runs differ, or the weight of the edges.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if no run is finished, or the runs do not differ in `over`, or in several settings without it.
    """
    runs = [record for record in records if record.state == FINISHED]
    if not runs:
        raise ValueError("no run is finished: go on with `causalvae-fast sweep`")
    names = varying(runs)
    if over is None:
        over = names[0] if len(names) == 1 else _PENALTY
    if over not in names:
        raise ValueError(
            f"the finished runs do not differ in {over}, but in {', '.join(names) or 'their seeds only'}: "
            "name what they are drawn against with --over"
        )
    scores, last = accuracies(runs), over.split(".")[-1]
    form = scores[0].partition(".")[2] if scores else ""
    unit = "peak signal-to-noise ratio, dB" if form == "psnr_db" else "explained variance of the pixels"
    plots = {
        f"reconstruction_by_{last}.png": ([*scores, f"background_alone.{form}"], f"{unit}, held out"),
        f"shd_by_{last}.png": (["shd", "edges"], "edges"),
    }
    titles = {"shd": "structural Hamming distance", "edges": "edges of the graph"}
    paths = []
    for file, (metrics, y_label) in plots.items():
        known = [name for name in metrics if any(name in run.metrics for run in runs)]
        if known and known != ["edges"]:
            panels = [
                Panel(title, {titles.get(name, _plain(name)): _curve(chosen, over, name) for name in known})
                for title, chosen in _panels(runs, over)
            ]
            paths.append(
                draw_against(panels, over.replace("_", " "), y_label, folder / file, counts="shd" in known)
            )
    return paths


def _plain(metric: str) -> str:
    return metric.split(".")[0].replace("_", " ")


def _panels(runs: Sequence[Record], over: str) -> list[tuple[str, list[Record]]]:
    """The runs by the settings other than `over` in which they differ."""
    panels: dict[str, list[Record]] = {}
    for configuration in by_configuration(runs):
        others = [f"{name} = {value}" for name, value in configuration.settings.items() if name != over]
        panels.setdefault(", ".join(others), []).extend(configuration.runs)
    return list(panels.items())


def _curve(runs: Sequence[Record], over: str, metric: str) -> dict[Any, list[float]]:
    curve: dict[Any, list[float]] = {}
    for run in runs:
        if metric in run.metrics:
            curve.setdefault(run.settings[over], []).append(run.metrics[metric])
    return curve


def draw_against(
    panels: Sequence[Panel], x_label: str, y_label: str, path: str | Path, *, counts: bool = False
) -> Path:
    """Draw curves against the values of a setting: medians, joined, over a band from the least to the greatest
    value, and a dot for each run.

    Args:
        panels: side by side, with the same axes; at most three curves each.
        x_label: the setting.
        y_label: what the curves are.
        path: of the PNG to write.
        counts: whether values are numbers of things, drawn from 0.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    top = 0.75 if any(panel.title for panel in panels) else 0.4
    left, right, bottom, gap = 0.85, 0.15, 0.6, 0.3
    width = left + len(panels) * _PANEL[0] + (len(panels) - 1) * gap + right
    height = bottom + _PANEL[1] + top
    figure = _canvas.new_figure(width, height)
    values = list(dict.fromkeys(x for panel in panels for curve in panel.curves.values() for x in curve))
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    place = {x: float(x) if numeric else index for index, x in enumerate(sorted(values) if numeric else values)}
    greatest = max(y for panel in panels for curve in panel.curves.values() for ys in curve.values() for y in ys)
    first = None
    for number, panel in enumerate(panels):
        x0 = left + number * (_PANEL[0] + gap)
        box = (x0 / width, bottom / height, _PANEL[0] / width, _PANEL[1] / height)
        axes = first = figure.add_axes(box, sharey=first)
        for (name, curve), colour in zip(panel.curves.items(), _COLOURS, strict=False):
            at = sorted(curve, key=lambda x: place[x])
            x = [place[value] for value in at]
            runs = [sorted(curve[value]) for value in at]
            axes.fill_between(x, [r[0] for r in runs], [r[-1] for r in runs], color=colour, alpha=0.18, lw=0)
            axes.plot(x, [median(r) for r in runs], color=colour, lw=1.6, marker="o", ms=5, label=name)
            dots = [(place_, value) for place_, of_value in zip(x, runs, strict=True) for value in of_value]
            axes.scatter([d[0] for d in dots], [d[1] for d in dots], s=10, color=colour, alpha=0.6, lw=0, zorder=3)
        positive = [x for x in place.values() if x > 0]
        if (
            numeric
            and min(place.values()) >= 0
            and max(positive, default=0) > _LOGARITHMIC * min(positive, default=1)
        ):
            if len(positive) == len(place):
                axes.set_xscale("log")
            else:  # with room for 0
                axes.set_xscale("symlog", linthresh=min(positive))
        axes.set_xticks(list(place.values()), [f"{x:g}" if numeric else str(x) for x in place])
        axes.minorticks_off()
        if counts:
            axes.locator_params(axis="y", integer=True)
            axes.set_ylim(0, 1.08 * greatest + 0.5)
        axes.tick_params(labelsize=9, color=_canvas.GREY, labelcolor=_canvas.INK, length=3, labelleft=number == 0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_canvas.PALE_GREY)
        axes.grid(axis="y", color=_canvas.PALE_GREY, lw=0.5, alpha=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.06)
        axes.set_xlabel(x_label, size=10, color=_canvas.INK)
        if panel.title:
            axes.set_title(panel.title, size=10, color=_canvas.INK, pad=24)
        if number == 0:
            axes.set_ylabel(y_label, size=10, color=_canvas.INK)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9)
    return _canvas.save(figure, path)
