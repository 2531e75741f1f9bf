"""Runs side by side, in Markdown and in HTML."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from causalvae_fast.training.checkpoint import write_atomically
from causalvae_fast.training.config import EXPERIMENTS
from causalvae_fast.training.config_fields import field_values
from causalvae_fast.training.results import FAILED, Record, by_configuration, is_sweep, metric_names, varying

_MOST_COLUMNS = 5  # runs, as columns; more of them are rows
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #262626; margin: 2em auto; max-width: 80em; padding: 0 1em; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #d0d0d0; text-align: left; vertical-align: top; }
th { font-weight: 600; }
img { max-width: 24em; }
"""


class Table(NamedTuple):
    """A header and rows; a cell is a text, or a picture's path."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Path | None]]


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


def _sections(paths: Sequence[Path], records: Sequence[Record]) -> list[tuple[str, str, Table | None]]:
    """Title, text and table of each section."""
    names, metrics = varying(records), metric_names(records)
    experiments = list(dict.fromkeys(record.experiment for record in records))
    sections: list[tuple[str, str, Table | None]] = []
    common = _common(records)
    sections.append(("Runs", f"Experiment: {', '.join(experiments)}. {common}", None))

    header = ["run", *(["experiment"] if len(experiments) > 1 else []), "state", *names, "seed", *metrics]
    rows: list[list[str | Path | None]] = []
    for record in records:
        kind = [record.experiment] if len(experiments) > 1 else []
        settings = [_text(record.settings.get(name, "")) for name in names]
        numbers = [_text(record.metrics.get(name, "")) for name in metrics]
        rows.append([record.path.name, *kind, record.state, *settings, str(record.seed), *numbers])
    table = Table(header, rows)
    sections.append(("", "", _transposed(table) if len(records) <= _MOST_COLUMNS else table))

    configurations = by_configuration(records)
    if len(configurations) < len(records) and metrics:
        spread = [
            [
                *(_text(value) for value in configuration.settings.values()),
                str(len(configuration.runs)),
                *(_spread(configuration.values(name)) for name in metrics),
            ]
            for configuration in configurations
        ]
        text = "Medians over seeds, with the least and the greatest in brackets."
        sections.append(("Configurations", text, Table([*names, "seeds", *metrics], spread)))

    failed = [[record.path.name, record.error] for record in records if record.state == FAILED]
    if failed:
        sections.append(("Failed", "", Table(["run", "error"], failed)))

    for path in paths:
        pictures = sorted((path / "figures").glob("*.png")) if is_sweep(path) else []
        if pictures:
            sections.append((f"Figures of {path.name}", "", Table(["" for _ in pictures], [pictures])))
    files = sorted({picture.name for record in records for picture in (record.path / "figures").glob("*.png")})
    if files:
        side_by_side = [
            [file.removesuffix(".png").replace("_", " "), *(_existing(r.path / "figures" / file) for r in records)]
            for file in files
        ]
        sections.append(("Figures", "", Table(["", *(record.path.name for record in records)], side_by_side)))
    else:
        sections.append(
            ("Figures", "None of the runs has figures: `causalvae-fast figures RUN` draws them.", None)
        )
    return sections


def _common(records: Sequence[Record]) -> str:
    """What was set in all runs alike, where it is not the default."""
    defaults = field_values(EXPERIMENTS[records[0].experiment]())
    alike = [
        f"{name} = {_text(value)}"
        for name, value in records[0].settings.items()
        if value != defaults[name] and all(record.settings.get(name, value) == value for record in records)
    ]
    return f"Set in all of them: {', '.join(alike)}; all else is as by default." if alike else ""


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return _text(middle) if len(values) == 1 else f"{middle:.4g} ({ordered[0]:.4g} to {ordered[-1]:.4g})"


def _transposed(table: Table) -> Table:
    columns = list(zip(table.header, *table.rows, strict=True))
    return Table([str(cell) for cell in columns[0]], [list(column) for column in columns[1:]])


def _markdown(sections: Sequence[tuple[str, str, Table | None]], folder: Path) -> str:
    def cell(content: str | Path | None) -> str:
        if isinstance(content, Path):
            return f"![{content.stem}]({quote(os.path.relpath(content, folder))})"
        return (content or "").replace("|", "\\|").replace("\n", " ")

    def row(cells: Sequence[str | Path | None]) -> str:
        return f"| {' | '.join(cell(content) for content in cells)} |"

    blocks = []
    for title, text, table in sections:
        blocks += [f"# {title}"] if title else []
        blocks += [text] if text else []
        if table is not None:
            lines = [row(table.header), f"|{'---|' * len(table.header)}", *(row(cells) for cells in table.rows)]
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _html(sections: Sequence[tuple[str, str, Table | None]]) -> str:
    def cell(tag: str, content: str | Path | None) -> str:
        if isinstance(content, Path):
            data = base64.b64encode(content.read_bytes()).decode()
            return f'<{tag}><img alt="{html.escape(content.stem)}" src="data:image/png;base64,{data}"></{tag}>'
        return f"<{tag}>{html.escape(content or '')}</{tag}>"

    def row(tag: str, cells: Sequence[str | Path | None]) -> str:
        return f"<tr>{''.join(cell(tag, content) for content in cells)}</tr>"

    blocks = []
    for title, text, table in sections:
        blocks += [f"<h1>{html.escape(title)}</h1>"] if title else []
        blocks += [f"<p>{html.escape(text)}</p>"] if text else []
        if table is not None:
            rows = [row("th", table.header), *(row("td", cells) for cells in table.rows)]
            blocks.append(f'<div class="wide"><table>\n{chr(10).join(rows)}\n</table></div>')
    body = "\n".join(blocks)
    head = f'<meta charset="utf-8"><title>Runs side by side</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
