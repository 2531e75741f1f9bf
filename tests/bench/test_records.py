"""Rows of results: ratios within rounds, the bound of ours, and that they are written at once."""

from __future__ import annotations

import json
from pathlib import Path

import records
from bound import Bound
from interleave import Times

CASE = {"case": "1x2-full", "shape": [1, 2], "dtype": "float32"}
OURS = Times([1e-3, 2e-3, 4e-3], 2**20)


def test_ratios_are_those_within_a_round() -> None:
    kernel = Times([0.5e-3, 1e-3, 2e-3], None)
    row = records.row("sem_kl", CASE, "formula", Times([3e-3, 6e-3, 12e-3], None), OURS, kernel)
    assert (row["ratio"], row["ratio_to_kernel"]) == (3.0, 6.0)
    assert row["ratio_quartiles"] == [3.0, 3.0]
    assert row["peak_mib"] is None


def test_only_ours_is_held_against_the_bound() -> None:
    limit = Bound(1e-3, "bytes")
    ours = records.row("sem_kl", CASE, "ours", OURS, OURS, None, limit)
    assert (ours["bound_ms"], ours["fraction_of_bound"], ours["limit"]) == (1.0, 0.5, "bytes")
    assert "bound_ms" not in records.row("sem_kl", CASE, "formula", OURS, OURS, None, limit)
    assert "ratio_to_kernel" not in ours


def test_rows_are_appended(tmp_path: Path) -> None:
    row = records.row("sem_kl", CASE, "ours", OURS, OURS)
    for _ in range(2):
        path = records.append(row, tmp_path / "new")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row, row]
    assert {"commit", "device", "threads", "torch", "python", "time"} <= row.keys()
