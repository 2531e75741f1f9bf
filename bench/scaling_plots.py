"""The two plots of the scaling study: time and peak memory of a call against d."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from report import LABELS
from report_plots import OTHERS, STYLES

Row = dict[str, str]

QUANTITIES = {"time": ("median_ms", "ms for a call"), "memory": ("peak_mib", "peak memory of a call, MiB")}
BATCHES = {"sem_kl": "d, with B = max(1, 2²² / d²)", "mlp_sem_kl": "d, with B = max(64, 2²⁰ / d²)"}
ALIKE = 2e-2  # a value further from ours than this, relative to it, is drawn hollow
STOP = Line2D([], [], marker="x", color="black", linestyle="none", markersize=9)
OFF = Line2D([], [], marker="o", color="black", fillstyle="none", linestyle="none", markersize=6)


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Files of the study of each op that was measured last: of one mode, dtype, number of threads and device."""
    kind = ("op", "mode", "dtype", "threads", "device")
    written = []
    for op in sorted({row["op"] for row in rows}):
        last = max((row for row in rows if row["op"] == op), key=lambda row: row["time"])
        chosen = [row for row in rows if all(row[k] == last[k] for k in kind)]
        title = f"{op}, {last['mode']}, {last['dtype']}, threads: {last['threads']}, {last['device']}"
        for name, (column, label) in QUANTITIES.items():
            figure = _figure(chosen, column, label, title)
            written.append(folder / f"scaling-{op}-{name}.png")
            figure.savefig(written[-1], dpi=100)
            plt.close(figure)
    return written


def _figure(rows: list[Row], column: str, label: str, title: str) -> plt.Figure:
    posteriors = sorted({row["posterior"] for row in rows})
    size = (4.6 * len(posteriors) + 2.8, 4.4)
    figure, axes = plt.subplots(
        1, len(posteriors), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    handles: dict[str, Line2D] = {}
    for panel, posterior in zip(axes[0], posteriors, strict=True):
        here = [row for row in rows if row["posterior"] == posterior]
        ours = {row["d"]: float(row["value"]) for row in here if row["contender"] == "ours" and row["value"]}
        for name in [n for n in STYLES if any(row["contender"] == n for row in here)]:
            mine = [row for row in here if row["contender"] == name]
            fine = sorted((int(r["d"]), float(r[column]), r) for r in mine if r["status"] == "ok" and r[column])
            known = [(d, y, row) for d, y, row in fine if y > 0]
            if not known:
                continue
            style = OTHERS | STYLES[name]
            handles[LABELS[name]] = panel.plot(*zip(*((d, y) for d, y, _ in known), strict=True), **style)[0]
            for d, y, row in known:
                expected = ours.get(row["d"])
                if expected is not None and not abs(float(row["value"]) - expected) <= ALIKE * abs(expected):
                    panel.plot(d, y, marker="o", color="white", markersize=4, zorder=7)
                    handles["off by more than 2 % of the value"] = OFF
            if any(row["status"] != "ok" for row in mine):
                panel.plot(*known[-1][:2], marker="x", color=style["color"], markersize=11, zorder=6)
                handles["failed, or over the limit, at the next d"] = STOP
        panel.set_title(f"{posterior} posterior", fontsize=10)
        panel.set_xlabel(BATCHES[rows[0]["op"]])
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2 if column == "peak_mib" else 10)
        if column == "peak_mib":  # which spans a few powers of two
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_xticks(sorted({int(row["d"]) for row in rows}))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(labelsize=8)
        panel.grid(color="#dddddd", linewidth=0.6)
    axes[0, 0].set_ylabel(label)
    ordered = sorted(handles, key=lambda name: handles[name] in (STOP, OFF))  # contenders first
    figure.legend(
        [handles[name] for name in ordered], ordered, loc="outside right upper", fontsize=8, frameon=False
    )
    figure.suptitle(title, fontsize=9, x=0.02, horizontalalignment="left")
    return figure
