"""The report on rows that are made up: what stands in the table, and that a slower row is really reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import report


def row(contender: str, ratio: float, **changes: Any) -> dict[str, Any]:
    made_up: dict[str, Any] = {
        "time": "2026-01-01T00:00:00+00:00",
        "commit": "0123456789ab",
        "device": "Some Processor, avx2",
        "threads": 1,
        "torch": "2.13.0",
        "op": "sem_kl",
        "case": "100x5-full-forward-float32",
        "shape": [100, 5],
        "posterior": "full",
        "jac": "per_sample",
        "mode": "forward",
        "dtype": "float32",
        "contender": contender,
        "median_ms": 2.0 * ratio,
        "iqr_ms": 0.25,
        "ratio": ratio,
        "ratio_quartiles": [0.9 * ratio, 1.1 * ratio],
        "peak_mib": 3.5,
    }
    return made_up | changes


BOUND = {"bound_ms": 0.5, "fraction_of_bound": 0.25, "limit": "flops"}
FASTER = [
    row("ours", 1.0, **BOUND),
    row("ours_per_sample", 1.2),
    row("kernel", 0.5, **BOUND),
    row("formula", 3.0, peak_mib=7.25),
    row("jax", 1.5, ratio_to_kernel=3.0, package="jax 0.10.2"),
]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "sem_kl.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def slower(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The list in its parts, one for each kind of comparison, each with its title first."""
    return [
        part.split("\n")
        for part in "\n".join(report.slower_list(rows)).strip().replace("\n\n-", "\n-").split("\n\n")
    ]


def test_the_table_has_the_numbers() -> None:
    titles, _, cells = (line.strip("| ").split(" | ") for line in report.table(FASTER))
    found = dict(zip(titles, cells, strict=True))
    assert found["case"] == "100 x 5, full"
    assert found["ours, ms"] == "2 ± 0.2"
    assert found["of the bound"] == "25 % (flops)"
    assert found["kernel call"] == "0.5 (25 %)"
    assert found["formula, eager"] == "3"
    assert found["JAX jit"] == "1.5"
    assert found["peak memory, MiB: ours"] == "3.5"
    assert found["least of others"] == "3.5"  # that of JAX


def test_nowhere_slower() -> None:
    assert [part[1:] for part in slower(FASTER)] == [["- nowhere"]] * 4


def test_what_was_not_compared_is_no_win() -> None:
    parts = slower([row("ours", 1.0)])
    assert [part[1:] for part in parts] == [["- nothing was compared"]] * 4
    assert parts[0][0].endswith("0 comparisons:")


def test_a_slower_row_is_reported() -> None:
    autograd, *rest = slower([*FASTER, row("compiled_formula", 0.5)])
    assert len(autograd) == 2
    assert (
        "100 x 5, full, forward, float32, 1 thread, avx2: 2 ms, 2 times the time of formula, torch.compile"
        in autograd[1]
    )
    assert "within the spread" not in autograd[1]
    assert rest[1][1:] == [
        "- sem_kl, 100 x 5, full, forward, float32, 1 thread, avx2: 2.4 ms, "
        "2.4 times the time of formula, torch.compile"
    ]


def test_one_that_is_slower_within_the_spread_is_reported_as_well() -> None:
    autograd, *_ = slower([*FASTER, row("compiled_formula", 0.95)])
    assert len(autograd) == 2
    assert "within the spread" in autograd[1]


def test_the_kernel_is_compared_with_jax() -> None:
    _, kernel, _, with_jax = slower(
        [r for r in FASTER if r["contender"] != "jax"] + [row("jax", 0.4, ratio_to_kernel=0.8)]
    )
    assert "1.25 times the time of JAX jit" in kernel[1]
    assert "2.5 times the time of JAX jit" in with_jax[1]


def test_the_last_row_of_a_contender_counts(tmp_path: Path) -> None:
    rows = report.load(write(tmp_path, [row("formula", 0.5), *FASTER]))
    assert len(rows) == len(FASTER)
    assert slower(rows)[0][1:] == ["- nowhere"]


def test_threads_and_dtypes_have_tables_of_their_own(tmp_path: Path) -> None:
    others = [r | {"threads": 2} for r in FASTER] + [r | {"dtype": "float64"} for r in FASTER]
    rows = report.load(write(tmp_path, [*FASTER, *others]))
    assert [key[1:3] for key in report.groups(rows)] == [("float32", 1), ("float32", 2), ("float64", 1)]


def test_it_writes_a_report_and_the_part_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    larger = [r | {"case": "64x16-full-forward-float32", "shape": [64, 16]} for r in FASTER]
    one_d = row("ours", 1.0, op="vae_step", case="128x16-step-float32", shape=[128, 16])
    write(tmp_path, [*FASTER, row("compiled_formula", 0.5), row("somebody_new", 4.0), *larger, one_d])
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.main(["--results", str(tmp_path), "--readme", str(readme)])
    written = (tmp_path / "report.md").read_text()
    assert "2 times the time of formula, torch.compile" in written
    assert "2 times the time of formula, torch.compile" in capsys.readouterr().out
    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == [
        "sem_kl-float32-1-some-processor-avx2-bound.png",
        "sem_kl-float32-1-some-processor-avx2-time.png",
    ]
    assert all(f"(plots/{name})" in written for name in plots)
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n`sem_kl` on Some Processor, avx2, one thread, float32")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text


def test_the_readme_shows_value_and_gradients() -> None:
    both = [r | {"mode": "forward+backward", "case": "100x5-full-forward+backward-float32"} for r in FASTER]
    block = report.readme_block([*FASTER, *both], [], Path("."))
    assert [line for line in block.splitlines() if line.startswith("|")] == [
        "| case | ours, ms | of the bound | formula, eager | formula, torch.compile "
        "| torch.distributions | JAX jit |",
        "|---|---|---|---|---|---|---|",
        "| 100 x 5, full | 2 ± 0.2 | 25 % (flops) | 3 x | - | - | 1.5 x |",
    ]


def test_plots_that_are_there_are_shown_without_being_drawn(tmp_path: Path) -> None:
    write(tmp_path, FASTER)
    name = "sem_kl-float32-1-some-processor-avx2-time.png"
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / name).write_bytes(b"as it was")
    report.main(["--results", str(tmp_path), "--no-plots"])
    assert f"(plots/{name})" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "plots" / name).read_bytes() == b"as it was"


def test_a_readme_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="has not one"):
        report.replace_block("nothing here", "block")


def test_latents_are_not_hidden_units() -> None:
    assert report.latents({"op": "mlp_sem_kl", "shape": [1024, 64, 16]}) == 64
    assert report.latents({"op": "ancestral_sample", "kind": "mlp", "shape": [100, 5, 8]}) == 5
    assert report.latents({"op": "pivot_kl", "shape": [256, 32, 16]}) == 16
