"""Plots of what the benchmarks measured: time against d, and the fraction of the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from records import BASELINE, KERNEL
from report import LABELS, Group, Row, latents, plot_name, variant

# Ours in one hue, the bound in black, others in hues that colour-blind readers tell apart, each with its marker.
STYLES: dict[str, dict[str, Any]] = {
    "ours": {"color": "#08519c", "marker": "o", "linewidth": 2.4, "zorder": 5},
    "kernel": {"color": "#4292c6", "marker": "o", "linewidth": 1.6, "linestyle": "--", "zorder": 4},
    "ours_per_sample": {"color": "#9ecae1", "marker": ".", "linewidth": 1.2},
    "formula": {"color": "#e69f00", "marker": "s"},
    "reference": {"color": "#e69f00", "marker": "s"},
    "compiled_formula": {"color": "#d55e00", "marker": "D"},
    "compiled_reference": {"color": "#d55e00", "marker": "D"},
    "scale_tril": {"color": "#009e73", "marker": "^"},
    "torch_distributions": {"color": "#009e73", "marker": "^"},
    "covariance_matrix": {"color": "#666666", "marker": "v"},
    "solve_triangular": {"color": "#009e73", "marker": "^"},
    "inverse": {"color": "#666666", "marker": "v"},
    "gpytorch": {"color": "#cc79a7", "marker": "P"},
    "jax": {"color": "#7b3294", "marker": "X"},
    "einsum_sem_kl": {"color": "#009e73", "marker": "^"},
    "jacrev": {"color": "#666666", "marker": "v"},
    "loop_in_place": {"color": "#cc79a7", "marker": "P"},
    "mechanism_loop": {"color": "#7b3294", "marker": "X"},
}
UNKNOWN = {"color": "#56b4e9", "marker": "*"}
OTHERS = {"linewidth": 1.2, "markersize": 4.5}
LOWEST_FRACTION = 3e-4  # below it, what is timed is the call and not the work
VARIANT_COLORS = ("#08519c", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def draw(groups: dict[Group, list[Row]], folder: Path) -> list[Path]:
    """Two figures for each group of rows; returns their files. One d has no time against d."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for key, rows in groups.items():
        op, dtype, threads, device = key
        title = f"{op}, {dtype}, {threads} thread{'s' if threads > 1 else ''}, {device}"
        if len({latents(row) for row in rows}) > 1:
            written.append(_save(time_figure(rows, title), folder / plot_name(key, "time")))
        if any("fraction_of_bound" in row for row in rows):
            written.append(_save(bound_figure(rows, title), folder / plot_name(key, "bound")))
    return written


def time_figure(rows: list[Row], title: str) -> plt.Figure:
    """Time for each sample of the largest batch against d; a panel for each variant (columns) and mode (rows)."""
    variants, modes = sorted({variant(row) for row in rows}), sorted({row["mode"] for row in rows})
    figure, axes = plt.subplots(
        len(modes),
        len(variants),
        figsize=(3.3 * len(variants) + 2.6, 2.9 * len(modes) + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    handles: dict[str, Any] = {}
    for i, mode in enumerate(modes):
        for j, what in enumerate(variants):
            panel = [row for row in rows if variant(row) == what and row["mode"] == mode]
            handles |= _time_panel(axes[i, j], panel)
            _log_axes(axes[i, j], rows)
            axes[i, j].set_title(f"{what}, {mode}" if what else mode, fontsize=9)
        axes[i, 0].set_ylabel("µs for each sample")
    for column in axes[-1]:
        column.set_xlabel("d")
    others = sorted(set(handles) - set(LABELS) - {"the bound"})
    order = [name for name in (*LABELS, *others, "the bound") if name in handles]
    labels = [LABELS.get(name, name).replace("`", "") for name in order]
    figure.legend([handles[name] for name in order], labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _time_panel(axes: Axes, rows: list[Row]) -> dict[str, Any]:
    handles = {}
    present = {row["contender"] for row in rows}
    for name in [*(n for n in STYLES if n in present), *sorted(present - set(STYLES))]:
        style = OTHERS | STYLES.get(name, UNKNOWN)
        handles[name] = axes.plot(*_against_d(rows_of(rows, name), "median_ms"), **style)[0]
    known = [row for row in rows_of(rows, BASELINE) if "bound_ms" in row]
    if known:
        points = _against_d(known, "bound_ms")
        handles["the bound"] = axes.plot(*points, color="black", linestyle=":", linewidth=1.6)[0]
    axes.set_yscale("log")
    return handles


def _against_d(rows: list[Row], column: str) -> tuple[list[int], list[float]]:
    """d, and us for each sample; of several batches with one d the largest."""
    points = {
        latents(row): 1e3 * row[column] / row["shape"][0] for row in sorted(rows, key=lambda r: r["shape"][0])
    }
    return sorted(points), [points[d] for d in sorted(points)]


def bound_figure(rows: list[Row], title: str) -> plt.Figure:
    """The fraction of the bound against d; a panel for each mode, a colour for each variant."""
    variants, modes = sorted({variant(row) for row in rows}), sorted({row["mode"] for row in rows})
    figure, axes = plt.subplots(
        1, len(modes), figsize=(3.8 * len(modes) + 3.4, 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, mode in zip(axes[0], modes, strict=True):
        for what, color in zip(variants, VARIANT_COLORS, strict=False):
            for name, style in ((BASELINE, "-"), (KERNEL, "--")):
                chosen = [r for r in rows_of(rows, name) if variant(r) == what and r["mode"] == mode]
                points = sorted((latents(r), r["fraction_of_bound"]) for r in chosen if "limit" in r)
                if points:
                    label = f"{what}, {LABELS[name]}".lstrip(", ")
                    panel.plot(
                        *zip(*points, strict=True), style, color=color, marker="o", markersize=4, label=label
                    )
        panel.axhline(1, color="black", linestyle=":", linewidth=1.2)
        panel.set_title(mode, fontsize=9)
        panel.set_xlabel("d")
        panel.set_yscale("log")
        panel.set_ylim(LOWEST_FRACTION, 1.4)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        _log_axes(panel, rows)
    axes[0, 0].set_ylabel("fraction of the bound")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def rows_of(rows: list[Row], contender: str) -> list[Row]:
    return [row for row in rows if row["contender"] == contender]


def _log_axes(axes: Axes, rows: list[Row]) -> None:
    """The sizes that were run are the ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({latents(row) for row in rows}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.tick_params(labelsize=8)


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
