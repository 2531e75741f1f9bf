"""Timing of contenders turn by turn, and the rows that come of it.

On a shared machine the speed changes from second to second, so that timing contenders one after the other does not
compare them. Here each round times every contender once; medians and ratios come from the same rounds.

pytest-benchmark times one function in one test. To keep its groups, tables and JSON, the interleaved times are
taken first and then replayed to it, through its own `timer` option (`ReplayTimer`).
"""

from __future__ import annotations

import functools
import gc
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import causalvae_fast

RESULTS = Path(__file__).parent / "results"
_MIN_ROUNDS, _MAX_ROUNDS = 7, 1000


def interleave(contenders: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Seconds that each contender took in each round, for about `seconds` in all, but at least 7 rounds."""
    for run in contenders.values():
        run()  # compilation, caches and buffers are not what is timed
    times: dict[str, list[float]] = {name: [] for name in contenders}
    collecting = gc.isenabled()
    gc.disable()
    try:
        begun = time.perf_counter()
        for round_ in range(_MAX_ROUNDS):
            if round_ >= _MIN_ROUNDS and time.perf_counter() - begun > seconds:
                break
            for name, run in contenders.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return times


class ReplayTimer:
    """A timer for pytest-benchmark that replays durations: read twice a round, it advances by the next of them."""

    def __init__(self) -> None:
        self._readings = iter([0.0])

    def load(self, durations: Sequence[float]) -> None:
        """What the next rounds will seem to take, seconds."""
        readings, now = [], 0.0
        for duration in durations:
            readings += [now, now + duration]
            now += duration
        self._readings = iter(readings)

    def __call__(self) -> float:
        return next(self._readings)


@functools.cache
def environment() -> dict[str, Any]:
    """What a time means nothing without: commit, processor, threads and versions."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " + changes" if git("status", "--porcelain", "--", "csrc", "causalvae_fast", "bench/*.py") else ""
    return {
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + changed,
        "device": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "causalvae_fast": causalvae_fast.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def make_row(
    key: Mapping[str, Any], contender: str, durations: Sequence[float], ours: Sequence[float]
) -> dict[str, Any]:
    """A line of the results: median and interquartile range in ms, and the ratio to ours (above 1: slower)."""
    quartiles = statistics.quantiles(durations, n=4)
    return {
        **key,
        "contender": contender,
        "median_ms": 1e3 * statistics.median(durations),
        "iqr_ms": 1e3 * (quartiles[2] - quartiles[0]),
        "rounds": len(durations),
        "ratio_to_ours": statistics.median(durations) / statistics.median(ours),
        **environment(),
    }


def write_rows(op: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of a run as JSON lines, into a file of their own."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{op}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
