"""Benchmarks: contenders of a group are timed in turns (interleave.py), results go to bench/results/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# Inputs and tolerances are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ops"))

import records
from interleave import Contenders, Times, measure, playback

BASELINE = "ours"

_measured = pytest.StashKey[dict[str, dict[str, Times | Exception]]]()
_rows = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interleaved benchmarks")
    group.addoption("--bench-seconds", type=float, default=3.0, help="time for each group of contenders")
    group.addoption("--bench-rounds", type=int, default=5, help="rounds of each group at least")
    group.addoption("--bench-threads", type=int, default=1, help="threads of PyTorch and of the kernels")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.stash[_measured] = {}
    config.stash[_rows] = []


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compare(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[str, Contenders, dict[str, Any]], None]:
    """Times the contender of this test, together with all others of its case that were selected.

    For a test with the parameters `case` and `contender`, whose values have readable str(), and the mark
    `benchmark(timer=playback)`. Called with the op, the contenders, and what to record about the case.
    """
    config, node = request.config, request.node
    case, contender = node.callspec.params["case"], node.callspec.params["contender"]

    def selected() -> list[str]:
        functions = [i for i in request.session.items if isinstance(i, pytest.Function)]
        same = [i.callspec.params for i in functions if i.originalname == node.originalname]
        names = [str(params["contender"]) for params in same if params["case"] == case]
        return names if BASELINE in names else [*names, BASELINE]

    def run(op: str, contenders: Contenders, described: dict[str, Any]) -> None:
        key = f"{op} {case}"
        if key not in config.stash[_measured]:
            seconds, rounds = config.getoption("--bench-seconds"), config.getoption("--bench-rounds")
            config.stash[_measured][key] = measure(contenders, selected(), seconds, rounds)
        outcome = config.stash[_measured][key]
        times, baseline = outcome[contender], outcome[BASELINE]
        if isinstance(times, Exception):
            raise times
        if isinstance(baseline, Exception):
            raise baseline
        benchmark.group = key
        row = records.row(op, {"case": str(case), **described}, contender, times, baseline)
        benchmark.extra_info.update(row)
        config.stash[_rows].append(row)
        playback.load(times.seconds)
        benchmark.pedantic(lambda: None, rounds=len(times.seconds))

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_rows]
    if not rows:
        return
    terminalreporter.section("ratios")
    info = records.environment()
    terminalreporter.write_line(", ".join(f"{k} {v}" for k, v in info.items() if k != "time"))
    for line in records.ratio_table(rows, BASELINE):
        terminalreporter.write_line(line)
    for file in records.append(rows):
        terminalreporter.write_line(f"appended to {file.relative_to(records.ROOT)}")
