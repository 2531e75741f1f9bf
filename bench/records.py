"""The rows of a run: what was measured, on what, as JSON lines and as a table of ratios."""

from __future__ import annotations

import functools
import json
import platform
import statistics
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from bound import Bound
from interleave import Times

from causalvae_fast.ops import _native

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"

BASELINE = "ours"
KERNEL = "kernel"
OURS = ("ours", "ours_per_sample", "ours_edges", "kernel")
PACKAGES = ("jax", "gpytorch")  # contenders that are called like the package that they come from


@functools.cache
def environment() -> dict[str, Any]:
    """What the times of this run depend on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": device(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    # What a run writes itself does not change what it measures.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results", ":!README.md")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


@functools.cache
def device() -> str:
    """The processor, and the instruction set that our kernels use: its name alone does not say what it can do."""
    return f"{_cpu_model()}, {_native.cpu().isas()[-1]}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row(
    op: str,
    case: dict[str, Any],
    contender: str,
    times: Times,
    baseline: Times,
    kernel: Times | None = None,
    bound: Bound | None = None,
) -> dict[str, Any]:
    """One result: the median and the interquartile range in milliseconds, and the ratio to the baseline, with
    its quartiles; the ratio to the bare kernel call where that was timed as well; for ours, what is known of the
    bound.

    A ratio is the median over rounds of the ratio within a round, where both met the same noise.
    """
    quartiles, ratios = _quartiles(times.seconds), _ratios(times, baseline)
    peak = None if times.peak_bytes is None else round(times.peak_bytes / 2**20, 2)
    package = {"package": f"{contender} {metadata.version(contender)}"} if contender in PACKAGES else {}
    result = environment() | package | {"op": op, **case, "contender": contender}
    result |= {
        "median_ms": _rounded(1e3 * quartiles[1]),
        "iqr_ms": _rounded(1e3 * (quartiles[2] - quartiles[0])),
        "ratio": _rounded(ratios[1]),
        "ratio_quartiles": [_rounded(ratios[0]), _rounded(ratios[2])],
        "rounds": len(times.seconds),
        "peak_mib": peak,
    }
    if kernel:
        result["ratio_to_kernel"] = _rounded(_ratios(times, kernel)[1])
    if bound and contender in OURS:
        result |= bound.columns(quartiles[1])
    return result


def median_ms(times: Times) -> float:
    return 1e3 * statistics.median(times.seconds)


def _ratios(times: Times, base: Times) -> list[float]:
    return _quartiles([t / b for t, b in zip(times.seconds, base.seconds, strict=True)])


def _quartiles(numbers: list[float]) -> list[float]:
    return statistics.quantiles(numbers, n=4) if len(numbers) > 1 else numbers * 3


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def append(row: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Adds a row to the file of its op. At once, so that an interrupted run keeps its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row['op']}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return path


def ratio_table(rows: list[dict[str, Any]], baseline: str) -> Iterator[str]:
    """The lines of a table: a row for each case, a column for each contender; how near ours came to the bound."""
    names = list(dict.fromkeys(r["contender"] for r in rows))
    cases = list(dict.fromkeys(r["case"] for r in rows))
    cells = {(r["case"], r["contender"]): r for r in rows}
    width = max(map(len, cases))
    widths = [max(len(name), 9) for name in names]
    titles = "  ".join(name.rjust(w) for name, w in zip(names, widths, strict=True))
    yield f"{'time / ' + baseline:<{width}}  {baseline + ' ms':>16}  {'of bound':>8}  {titles}"
    for case in cases:
        found = [cells.get((case, name)) for name in names]
        base = cells.get((case, baseline))
        shown = f"{base['median_ms']:.4g} ± {base['iqr_ms']:.2g}" if base else "-"
        fraction = f"{base['fraction_of_bound']:.1%}" if base and "fraction_of_bound" in base else "-"
        ratios = [(f"{r['ratio']:.2f}" if r else "-").rjust(w) for r, w in zip(found, widths, strict=True)]
        yield f"{case:<{width}}  {shown:>16}  {fraction:>8}  {'  '.join(ratios)}"
