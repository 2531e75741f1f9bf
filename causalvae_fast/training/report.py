"""Runs side by side, in Markdown and in HTML."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import quote

from causalvae_fast.training.checkpoint import write_atomically
from causalvae_fast.training.config import EXPERIMENTS
from causalvae_fast.training.config_fields import field_values
from causalvae_fast.training.results import (
    FAILED,
    PART_DONE,
    Record,
    by_configuration,
    is_sweep,
    metric_names,
    varying,
)

_MOST_COLUMNS = 5  # runs, as columns; more of them are rows
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #262626; margin: 2em auto; max-width: 80em; padding: 0 1em; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #d0d0d0; text-align: left; vertical-align: top; }
th { font-weight: 600; }
img { max-width: 24em; }
"""


Cell = str | Path  # a text, or a picture


class Section(NamedTuple):
    """A part of the report."""

    title: str
    text: str
    rows: Sequence[Sequence[Cell]] = ()
    """Of a table; the first is its header."""


def write_report(paths: Sequence[Path], records: Sequence[Record], folder: Path) -> list[Path]:
    """Write report.md and report.html: settings, metrics and figures of runs side by side.

    Args:
        paths: folders of runs or sweeps; those of sweeps may have figures of their own.
        records: the runs in them.
        folder: where the files go. The Markdown refers to the figures, the HTML has them in it.

    Returns:
        The two files.

    Raises:
        OSError: if they cannot be written.
    """
    sections = _sections(paths, records)
    folder.mkdir(parents=True, exist_ok=True)
    markdown, page = folder / "report.md", folder / "report.html"
    write_atomically(markdown, _markdown(sections, folder).encode())
    write_atomically(page, _html(sections).encode())
    return [markdown, page]


def _sections(paths: Sequence[Path], records: Sequence[Record]) -> list[Section]:
    names, metrics = varying(records), metric_names(records)
    labels = [record.path.name for record in records]
    if len(set(labels)) < len(labels):
        labels = [str(record.path) for record in records]
    experiments = list(dict.fromkeys(record.experiment for record in records))
    sections = [Section("Runs", f"Experiment: {', '.join(experiments)}. {_common(records)}")]

    rows: list[list[Cell]] = [["run", *labels]]
    if len(experiments) > 1:
        rows.append(["experiment", *(record.experiment for record in records)])
    rows.append(["state", *(record.state for record in records)])
    rows += [[name, *(_text(record.settings.get(name, "")) for record in records)] for name in names]
    rows.append(["seed", *(str(record.seed) for record in records)])
    rows += [[name, *(_text(record.metrics.get(name, "")) for record in records)] for name in metrics]
    if len(records) > _MOST_COLUMNS:
        rows = [list(row) for row in zip(*rows, strict=True)]
    unfinished = any(record.state == PART_DONE for record in records)
    hint = "A run that is part-done is not trained to the end, or not evaluated: `causalvae-fast evaluate RUN`."
    sections.append(Section("", hint if unfinished else "", rows))

    configurations = by_configuration(records)
    if len(configurations) < len(records) and metrics:
        spread: list[list[Cell]] = [[*names, "seeds", *metrics]]
        for configuration in configurations:
            settings = [_text(value) for value in configuration.settings.values()]
            values = [_spread(configuration.values(name)) for name in metrics]
            spread.append([*settings, str(len(configuration.runs)), *values])
        text = "Medians over seeds, with the least and the greatest in brackets."
        sections.append(Section("Configurations", text, spread))

    failed = [(label, run.error) for label, run in zip(labels, records, strict=True) if run.state == FAILED]
    if failed:
        sections.append(Section("Failed", "", [["run", "error"], *failed]))
    return sections + _figures(paths, records, labels)


def _figures(paths: Sequence[Path], records: Sequence[Record], labels: Sequence[str]) -> list[Section]:
    """The figures of sweeps, then those of runs side by side."""
    sections = []
    for path in filter(is_sweep, paths):
        pictures = sorted((path / "figures").glob("*.png"))
        if pictures:
            sections.append(
                Section(f"Figures of {path.name}", "", [[picture.stem for picture in pictures], pictures])
            )
    files = sorted({picture.name for record in records for picture in (record.path / "figures").glob("*.png")})
    if not files:
        text = "None of the runs has figures: `causalvae-fast figures RUN` draws them."
        return [*sections, Section("Figures", text)]
    rows: list[list[Cell]] = [["", *labels]]
    for file in files:
        pictures = [record.path / "figures" / file for record in records]
        rows.append([file.removesuffix(".png"), *(path if path.is_file() else "" for path in pictures)])
    return [*sections, Section("Figures", "", rows)]


def _common(records: Sequence[Record]) -> str:
    """What was set in all runs alike, where it is not the default."""
    defaults = field_values(EXPERIMENTS[records[0].experiment]())
    alike = [
        f"{name} = {_text(value)}"
        for name, value in records[0].settings.items()
        if value != defaults[name] and all(record.settings.get(name, value) == value for record in records)
    ]
    return f"Set in all of them: {', '.join(alike)}; all else is as by default." if alike else ""


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(map(_text, values))
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def _markdown(sections: Sequence[Section], folder: Path) -> str:
    def cell(content: Cell) -> str:
        if isinstance(content, Path):
            return f"![{content.stem}]({quote(os.path.relpath(content, folder))})"
        return content.replace("|", "\\|")

    def row(cells: Sequence[Cell]) -> str:
        return f"| {' | '.join(cell(content) for content in cells)} |"

    blocks = []
    for title, text, rows in sections:
        blocks += [f"# {title}"] if title else []
        blocks += [text] if text else []
        if rows:
            blocks.append("\n".join([row(rows[0]), f"|{'---|' * len(rows[0])}", *map(row, rows[1:])]))
    return "\n\n".join(blocks) + "\n"


def _html(sections: Sequence[Section]) -> str:
    def cell(tag: str, content: Cell) -> str:
        if isinstance(content, Path):
            data = base64.b64encode(content.read_bytes()).decode()
            return f'<{tag}><img alt="{html.escape(content.stem)}" src="data:image/png;base64,{data}"></{tag}>'
        return f"<{tag}>{html.escape(content)}</{tag}>"

    def row(tag: str, cells: Sequence[Cell]) -> str:
        return f"<tr>{''.join(cell(tag, content) for content in cells)}</tr>"

    blocks = []
    for title, text, rows in sections:
        blocks += [f"<h1>{html.escape(title)}</h1>"] if title else []
        blocks += [f"<p>{html.escape(text)}</p>"] if text else []
        if rows:
            lines = "\n".join([row("th", rows[0]), *(row("td", cells) for cells in rows[1:])])
            blocks.append(f'<div class="wide"><table>\n{lines}\n</table></div>')
    body = "\n".join(blocks)
    head = f'<meta charset="utf-8"><title>Runs side by side</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
