"""The measurement of the machine: that it compiles and gives numbers which make sense."""

from __future__ import annotations

import shutil

import machine
import pytest

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_measurement(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "WORKING_SETS", (1 << 14, 1 << 20))
    machine.measure.cache_clear()
    found = machine.ceilings(threads)
    machine.measure.cache_clear()
    assert found.threads == threads
    assert found.flops["float32"] > found.flops["float64"] > 1e8
    for rates in found.rates.values():
        assert rates.best >= max(rates.read, rates.write) > 1e7


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COMPILE", ("no-such-compiler",))
    machine._compiled.cache_clear()
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        machine._compiled()
    machine._compiled.cache_clear()
