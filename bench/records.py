"""The rows of a run: what was measured, on what, as JSON lines and as a table of ratios."""

from __future__ import annotations

import functools
import json
import platform
import statistics
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from interleave import Times

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


@functools.cache
def environment() -> dict[str, Any]:
    """What the times of this run depend on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": _cpu_model(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row(op: str, case: dict[str, Any], contender: str, times: Times, baseline: Times) -> dict[str, Any]:
    """One result: the median and the interquartile range in milliseconds, and the ratio to the baseline.

    The ratio is the median over rounds of the ratio within a round, where both met the same noise.
    """
    quartiles = statistics.quantiles(times.seconds, n=4) if len(times.seconds) > 1 else times.seconds * 3
    ratios = [t / base for t, base in zip(times.seconds, baseline.seconds, strict=True)]
    peak = None if times.peak_bytes is None else round(times.peak_bytes / 2**20, 2)
    return environment() | {
        "op": op,
        **case,
        "contender": contender,
        "median_ms": _rounded(1e3 * quartiles[1]),
        "iqr_ms": _rounded(1e3 * (quartiles[2] - quartiles[0])),
        "ratio": _rounded(statistics.median(ratios)),
        "rounds": len(times.seconds),
        "peak_mib": peak,
    }


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def append(rows: list[dict[str, Any]]) -> list[Path]:
    """Adds the rows to the file of their op in bench/results/, and returns the files."""
    RESULTS.mkdir(exist_ok=True)
    files = []
    for op in sorted({r["op"] for r in rows}):
        files.append(RESULTS / f"{op}.jsonl")
        with files[-1].open("a") as file:
            file.writelines(json.dumps(r) + "\n" for r in rows if r["op"] == op)
    return files


def ratio_table(rows: list[dict[str, Any]], baseline: str) -> Iterator[str]:
    """The lines of a table: a row for each case, a column for each contender."""
    names = list(dict.fromkeys(r["contender"] for r in rows))
    cases = list(dict.fromkeys(r["case"] for r in rows))
    cells = {(r["case"], r["contender"]): r for r in rows}
    width = max(map(len, cases))
    widths = [max(len(name), 9) for name in names]
    titles = "  ".join(name.rjust(w) for name, w in zip(names, widths, strict=True))
    yield f"{'time / ' + baseline:<{width}}  {baseline + ' ms':>16}  {titles}"
    for case in cases:
        found = [cells.get((case, name)) for name in names]
        base = cells.get((case, baseline))
        shown = f"{base['median_ms']:.4g} ± {base['iqr_ms']:.2g}" if base else "-"
        ratios = [(f"{r['ratio']:.2f}" if r else "-").rjust(w) for r, w in zip(found, widths, strict=True)]
        yield f"{case:<{width}}  {shown:>16}  {'  '.join(ratios)}"
