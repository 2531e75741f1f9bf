"""Benchmarks: contenders of a group are timed in turns (interleave.py), results go to bench/results/."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# Inputs and tolerances are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ops"))

import peers
import records
from bound import Bound, Work, bound
from interleave import Compare, Contenders, Times, measure, playback
from machine import Machine, ceilings
from memory import use_one_heap
from records import BASELINE, KERNEL


class State:
    """What a run has measured so far."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, Times | Exception]] = {}
        self.rows: list[dict[str, Any]] = []
        self.machine: Machine | None = None
        self.no_machine = ""  # why there is none
        self.start = time.monotonic()


_state = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interleaved benchmarks")
    group.addoption("--bench-seconds", type=float, default=3.0, help="time for each group of contenders")
    group.addoption("--bench-rounds", type=int, default=5, help="rounds of each group at least")
    group.addoption("--bench-threads", type=int, default=1, help="threads of PyTorch, JAX and of the kernels")
    group.addoption("--bench-results", type=Path, default=records.RESULTS, help="folder that rows are added to")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.stash[_state] = State()
    use_one_heap()
    peers.fix_threads(config.getoption("--bench-threads"))


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compare(request: pytest.FixtureRequest, benchmark: Any) -> Compare:
    """Times the contender of this test, together with all others of its case that were selected.

    For a test with the parameters `case` and `contender`, whose values have readable str(), and the mark
    `benchmark(timer=playback)`. Called with the op, the contenders, what to record about the case, and what a call
    must compute and move, if that is known.
    """
    config, node = request.config, request.node
    state = config.stash[_state]
    case, contender = node.callspec.params["case"], str(node.callspec.params["contender"])

    def selected() -> list[str]:
        functions = [i for i in request.session.items if isinstance(i, pytest.Function)]
        same = [i.callspec.params for i in functions if i.originalname == node.originalname]
        names = [str(params["contender"]) for params in same if params["case"] == case]
        names = [name for name in names if peers.installed(name)]
        return names if BASELINE in names else [*names, BASELINE]

    def run(op: str, contenders: Contenders, described: dict[str, Any], work: Work | None) -> None:
        key = f"{op} {case}"
        limit = _bound(config, work, described["dtype"]) if work else None
        if key not in state.groups:
            seconds, rounds = config.getoption("--bench-seconds"), config.getoption("--bench-rounds")
            state.groups[key] = measure(contenders, selected(), seconds, rounds)
            _say(config, _progress(request.session, state, key, limit))
        outcome = state.groups[key]
        times, baseline, kernel = outcome[contender], outcome[BASELINE], outcome.get(KERNEL)
        if isinstance(times, Exception):
            raise times
        if isinstance(baseline, Exception):
            raise baseline
        kernel = kernel if isinstance(kernel, Times) else None
        benchmark.group = key
        row = records.row(op, {"case": str(case), **described}, contender, times, baseline, kernel, limit)
        benchmark.extra_info.update(row)
        state.rows.append(row)
        records.append(row, config.getoption("--bench-results"))
        playback.load(times.seconds)
        benchmark.pedantic(lambda: None, rounds=len(times.seconds))

    return run


def _bound(config: pytest.Config, work: Work, dtype: str) -> Bound | None:
    """None where the machine cannot be measured, which the summary tells."""
    state = config.stash[_state]
    if state.machine is None and not state.no_machine:
        _say(config, "measuring the peak and the bandwidth of this machine")
        try:
            state.machine = ceilings(config.getoption("--bench-threads"))
        except RuntimeError as error:
            state.no_machine = str(error)
        state.start = time.monotonic()
    return bound(work, dtype, state.machine) if state.machine else None


def _progress(session: pytest.Session, state: State, key: str, limit: Bound | None) -> str:
    """A line for a group that has been measured: ours, the fastest of the others, and how much time is left."""
    functions = [i for i in session.items if isinstance(i, pytest.Function) and "case" in i.fixturenames]
    groups = len({(i.originalname, i.callspec.params["case"]) for i in functions})
    medians = {
        name: records.median_ms(times) for name, times in state.groups[key].items() if isinstance(times, Times)
    }
    ours = medians.get(BASELINE)
    if ours is None:
        shown = "ours failed"
    else:
        shown = f"ours {ours:.3g} ms" + (f", {1e3 * limit.seconds / ours:.1%} of the bound" if limit else "")
        others = {name: ms for name, ms in medians.items() if name not in records.OURS}
        if others:
            best = min(others, key=lambda name: others[name])
            shown += f"; {best} x {others[best] / ours:.3g}"
    done = len(state.groups)
    left = (time.monotonic() - state.start) / done * (groups - done)
    return f"[{done}/{groups}] {key}: {shown}; {left / 60:.0f} min left"


def _say(config: pytest.Config, line: str) -> None:
    """A line to the terminal from within a test, past pytest's capture."""
    reporter, capture = map(config.pluginmanager.get_plugin, ("terminalreporter", "capturemanager"))
    if reporter and capture:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"\n{line}")  # after the dots of tests that have passed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    state = config.stash[_state]
    if not state.rows:
        return
    terminalreporter.section("ratios")
    info = records.environment()
    terminalreporter.write_line(", ".join(f"{k} {v}" for k, v in info.items() if k != "time"))
    if state.machine:
        flops = ", ".join(f"{rate / 1e9:.0f} in {dtype}" for dtype, rate in state.machine.flops.items())
        terminalreporter.write_line(f"peak, GFLOP/s: {flops}")
    else:
        terminalreporter.write_line(f"no bounds: {state.no_machine}")
    for line in records.ratio_table(state.rows, BASELINE):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"rows were added to {config.getoption('--bench-results')}")
