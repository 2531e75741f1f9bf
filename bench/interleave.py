"""Contenders that are timed in turns, so that the noise of a shared machine meets all of them alike.

pytest-benchmark times one test after the other. Here all members of a group are timed when its first test runs,
round after round, and each test hands its own times to pytest-benchmark through a timer that plays them back: its
statistics, groups, comparison and JSON stay as they are.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from bound import Work
from memory import peak_memory

Call = Callable[[], Any]

_SHORTEST_SAMPLE = 5e-3  # seconds; shorter calls are repeated within a sample


class Times(NamedTuple):
    """The times of one contender."""

    seconds: list[float]  # per call, one for each round
    peak_bytes: int | None  # memory that a call adds at its peak; None where it cannot be measured


class Contenders(Protocol):
    """What a benchmark says about the members of a group."""

    def build(self, contender: str) -> Call:
        """The call to be timed, with everything prepared that is not part of it."""

    def verify(self, contender: str, result: Any) -> None:
        """Raises unless the result of the call is right."""


Compare = Callable[[str, Contenders, dict[str, Any], Work | None], None]  # the fixture `compare`


def measure(
    contenders: Contenders, names: list[str], seconds: float, min_rounds: int
) -> dict[str, Times | Exception]:
    """Times the contenders in turns, for `seconds` in all and at least `min_rounds` rounds.

    A contender that raises, or whose result is wrong, is not timed: its exception is returned.
    """
    outcome: dict[str, Times | Exception] = {}
    calls: dict[str, Call] = {}
    for name in names:
        try:
            call = contenders.build(name)
            contenders.verify(name, call())
            calls[name] = call
        except Exception as error:  # it fails the test of this contender, not those of the others
            outcome[name] = error
    samples = _in_turns(calls, seconds, min_rounds)
    return outcome | {name: Times(samples[name], peak_memory(call)) for name, call in calls.items()}


def _in_turns(calls: Mapping[str, Call], seconds: float, min_rounds: int) -> dict[str, list[float]]:
    repeats = {name: _repeats(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        done = 0
        while order and (done < min_rounds or time.perf_counter() < end):
            shuffle(order)  # so that nobody always finds the caches as the same one left them
            for name in order:
                samples[name].append(_time(calls[name], repeats[name]))
            done += 1
    finally:
        gc.enable()
    return samples


def _repeats(call: Call) -> int:
    call()
    fastest = min(_time(call, 1) for _ in range(3))  # one of them may be interrupted
    return max(1, math.ceil(_SHORTEST_SAMPLE / max(fastest, 1e-7)))


def _time(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


class Playback:
    """A timer for pytest-benchmark under which rounds take the times that were loaded."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._running = False
        self._samples: Iterator[float] = iter(())

    def load(self, samples: list[float]) -> None:
        self._samples = iter(samples)
        self._running = False

    def __call__(self) -> float:
        if self._running:
            self._clock += next(self._samples)
        self._running = not self._running
        return self._clock


playback = Playback()
