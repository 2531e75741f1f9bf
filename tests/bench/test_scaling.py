"""The scaling study: that it goes on where it was interrupted, and that failures are rows, not the end of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import scaling
from scaling_plots import draw

STUDY = scaling.Study("forward", "float32", 1, seconds=0.0, limit=100.0, memory_gib=8.0)


class MadeUp(scaling.Worker):
    """Answers at once: of two contenders, one runs out of memory at d = 16."""

    asked: list[tuple[str, int]]

    def __init__(self, op: str, contender: str, posterior: str, study: scaling.Study) -> None:
        self._contender = contender

    def point(self, d: int) -> dict[str, Any]:
        self.asked.append((self._contender, d))
        if self._contender == "formula" and d == 16:
            return {"status": "out of memory"}
        numbers = {
            "median_ms": d,
            "iqr_ms": 1,
            "rounds": 3,
            "peak_mib": d,
            "value": d if self._contender == "ours" else 2 * d,
        }
        return {"status": "ok", **numbers}

    def stop(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    monkeypatch.setattr(MadeUp, "asked", [], raising=False)
    monkeypatch.setattr(scaling, "Worker", MadeUp)
    return MadeUp.asked


def todo(*sizes: int) -> list[dict[str, Any]]:
    return list(scaling.points(STUDY, "sem_kl", ["ours", "formula"], list(sizes), ["full"]))


def test_a_contender_stops_where_it_fails(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    scaling.run(STUDY, todo(8, 16, 32), tmp_path / "scaling.csv")
    assert asked == [("ours", 8), ("formula", 8), ("ours", 16), ("formula", 16), ("ours", 32)]
    rows = scaling.read(tmp_path / "scaling.csv")
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "out of memory", "ok"]
    assert {row["d"]: row["batch"] for row in rows} == {"8": "65536", "16": "16384", "32": "4096"}


def test_what_is_there_is_not_measured_again(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    scaling.run(STUDY, todo(8, 16), tmp_path / "scaling.csv")
    asked.clear()
    scaling.run(STUDY, todo(8, 16, 32), tmp_path / "scaling.csv")
    assert asked == [("ours", 32)]


def test_the_plots(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    scaling.run(STUDY, todo(8, 16, 32), tmp_path / "scaling.csv")
    files = draw(scaling.read(tmp_path / "scaling.csv"), tmp_path)
    assert [path.name for path in files] == ["scaling-sem_kl-time.png", "scaling-sem_kl-memory.png"]
    assert all(path.stat().st_size > 0 for path in files)


def test_the_batch_holds_the_size_of_the_inputs() -> None:
    assert {scaling.batch_of("sem_kl", d) * d * d for d in scaling.SIZES[:-1]} == {2**22}
    assert [scaling.batch_of(op, 4096) for op in scaling.CONTENDERS] == [1, 64]


@pytest.mark.parametrize(("op", "posterior", "d"), [("sem_kl", "full", 1024), ("mlp_sem_kl", "diagonal", 128)])
def test_a_process_answers(op: str, posterior: str, d: int, tmp_path: Path) -> None:
    scaling.run(STUDY, list(scaling.points(STUDY, op, ["ours"], [d], [posterior])), tmp_path / "scaling.csv")
    (row,) = scaling.read(tmp_path / "scaling.csv")
    assert row["status"] == "ok"
    assert float(row["median_ms"]) > 0
