"""What runs came to, read from their folders: those of a sweep, or any others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from causalvae_fast.training.config import TrainConfig, experiment_name
from causalvae_fast.training.config_fields import MAY_DIFFER, field_values
from causalvae_fast.training.runs import RunFolder, RunFolderError

FINISHED, FAILED, PART_DONE, NOT_BEGUN = "finished", "failed", "part-done", "not begun"


class Record(NamedTuple):
    """A run, and what it came to."""

    path: Path
    config: TrainConfig
    state: str
    """finished (trained to the end and evaluated), failed or part-done."""
    metrics: dict[str, float]
    """By dotted names, such as reconstruction.psnr_db; edges is their number. Empty unless the run is finished."""
    error: str
    """The first line of what a failed run failed with."""

    @property
    def experiment(self) -> str:
        """Its name, as `causalvae-fast train` takes it."""
        return experiment_name(self.config)

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted name -> value of what was set, but for the seed and `config_fields.MAY_DIFFER`."""
        left_out = ("seed", *MAY_DIFFER)
        return {name: value for name, value in field_values(self.config).items() if name not in left_out}


class Configuration(NamedTuple):
    """Runs that differ in their seed alone."""

    settings: dict[str, Any]
    """Those in which it differs from the others."""
    runs: list[Record]

    @property
    def text(self) -> str:
        """Its settings, for people."""
        return ", ".join(f"{name} = {value}" for name, value in self.settings.items()) or "all runs"

    def values(self, metric: str) -> list[float]:
        """A metric of its runs, as far as they have it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def median(self, metric: str) -> float:
        """The median over its runs, at least one of which must have the metric."""
        return median(self.values(metric))


def state_of(folder: RunFolder) -> str:
    """How far a run has come, as its folder says."""
    metrics = _metrics(folder)
    if metrics.get("step", 0) == metrics.get("steps", -1):
        return FINISHED
    if folder.error.exists():
        return FAILED
    return PART_DONE if folder.config.exists() else NOT_BEGUN


def read_record(path: Path) -> Record:
    """What the run in a folder came to.

    Raises:
        RunFolderError: if there is no run in it, or its metrics.json cannot be read.
        ConfigError: if its configuration cannot be used.
    """
    folder = RunFolder(path)
    config, state = folder.read_config(), state_of(folder)
    metrics = _numbers(_metrics(folder)) if state == FINISHED else {}
    error = folder.error.read_text().partition("\n")[0] if state == FAILED else ""
    return Record(path, config, state, metrics, error)


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The runs in these folders, each of which may be a run or a sweep; a sweep's are sorted by their settings.

    Raises:
        RunFolderError: if there is neither a run nor a sweep in a folder.
        ConfigError: if a configuration cannot be used.
    """
    records: list[Record] = []
    for path in paths:
        if is_sweep(path):
            runs = [read_record(child) for child in path.iterdir() if (child / "config.yaml").is_file()]
            if not runs:
                raise RunFolderError(f"no run of the sweep in {path} has begun: go on with `causalvae-fast sweep`")
            names = varying(runs)
            records += sorted(
                runs, key=lambda run: [_order(run.settings[name]) for name in names] + [_order(run.seed)]
            )
        elif RunFolder(path).config.is_file():
            records.append(read_record(path))
        else:
            raise RunFolderError(
                f"there is no run in {path}: give the folder of a `causalvae-fast train` or `causalvae-fast sweep`"
            )
    return records


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (path / "sweep.yaml").is_file()


def varying(records: Sequence[Record]) -> list[str]:
    """The settings in which runs differ, in the order of the configuration."""
    names = list(dict.fromkeys(name for record in records for name in record.settings))
    return [name for name in names if len({repr(record.settings.get(name)) for record in records}) > 1]


def by_configuration(records: Sequence[Record]) -> list[Configuration]:
    """The runs, those with the same settings together, in their order."""
    names = varying(records)
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"{record.experiment} {record.settings!r}", []).append(record)
    return [Configuration({name: runs[0].settings.get(name) for name in names}, runs) for runs in groups.values()]


def accuracies(records: Sequence[Record]) -> list[str]:
    """The metrics that say how well images come back: of the reconstruction, and of the prediction if any.

    A graph without edges reconstructs as well as another one, from latents that were encoded; only what is
    predicted from causes tells whether edges are missing.
    """
    known = metric_names(records)
    forms = ([f"{what}.psnr_db", f"{what}.pixel_r2", what] for what in ("reconstruction", "prediction"))
    return [name for names in forms for name in [next((n for n in names if n in known), None)] if name]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in columns, for a terminal."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def metric_names(records: Sequence[Record]) -> list[str]:
    """The metrics that any of the runs has, in their order."""
    return list(dict.fromkeys(name for record in records for name in record.metrics))


def as_csv(records: Sequence[Record]) -> str:
    """A table with a row for each run: name, state, the settings in which runs differ, seed, metrics, error.

    Numbers are written so that they can be read back bit for bit.
    """
    settings, metrics = varying(records), metric_names(records)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["run", "state", *settings, "seed", *metrics, "error"])
    for record in records:
        values = [record.settings.get(name, "") for name in settings]
        numbers = [record.metrics.get(name, "") for name in metrics]
        writer.writerow([record.path.name, record.state, *values, record.seed, *numbers, record.error])
    return table.getvalue()


def _metrics(folder: RunFolder) -> dict[str, Any]:
    if not folder.metrics.is_file():
        return {}
    try:
        metrics = json.loads(folder.metrics.read_text())
    except ValueError as error:
        raise RunFolderError(
            f"{folder.metrics} is not readable JSON ({error}): write it again with "
            f"`causalvae-fast evaluate {folder.path}`"
        ) from error
    return metrics if isinstance(metrics, dict) else {}


def _numbers(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of metrics by dotted names; of a list of objects, such as edges, how many there are."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            if all(isinstance(entry, dict) for entry in value):
                found[prefix + name] = len(value)
        elif isinstance(value, int | float) and prefix + name not in ("step", "steps"):
            found[prefix + name] = value
    return found


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then texts."""
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
