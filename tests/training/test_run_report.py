"""Runs side by side, and the table of what they came to."""

import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from sweep_folders import write_run, write_sweep

from causalvae_fast.cli import main
from causalvae_fast.training.results import as_csv, read_record, read_records
from causalvae_fast.training.runs import RunFolderError


class Cells(HTMLParser):
    """The texts of the cells of all tables, and the sources of the pictures; fails where tags do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.pictures.append(dict(attributes)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def column(rows: list[list[str]], name: str) -> list[str]:
    return next(row[1:] for row in rows if row and row[0] == name)


def test_two_runs_are_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"epochs": 5, "kl_weight": 0.5}, reconstruction=34.567)
    b = write_run(tmp_path / "b<i>|", {"epochs": 5, "seed": 2}, shd=3)
    (a / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(a / "figures" / "graph.png")
    out = tmp_path / "out"
    assert main(["report", str(a), str(b), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / "report.md"), str(out / "report.html")]

    page = Cells((out / "report.html").read_text())
    assert column(page.rows, "run") == ["a", "b<i>|"]
    assert column(page.rows, "kl_weight") == ["0.5", "1"]
    assert column(page.rows, "seed") == ["0", "2"]
    assert column(page.rows, "shd") == ["0", "3"]
    assert column(page.rows, "reconstruction.psnr_db") == ["34.57", "34"]
    assert [source[:22] for source in page.pictures] == ["data:image/png;base64,"]

    text = (out / "report.md").read_text()
    assert "Set in all of them: epochs = 5; all else is as by default." in text
    assert "| run | a | b<i>\\| |" in text
    assert "| graph | ![graph](../a/figures/graph.png) |  |" in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run", state="part-done")]
    assert main(["report", *map(str, runs), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert f"| run | {runs[0]} | {runs[1]} |" in text
    assert "A run that is part-done is not trained to the end, or not evaluated" in text


def test_a_sweep_has_medians_errors_and_its_figures(tmp_path: Path) -> None:
    runs = [({"edge_weight": weight, "seed": seed}, {"shd": seed}) for weight in (1.0, 3.0) for seed in (0, 2, 3)]
    failed = ({"edge_weight": 9.0, "seed": 0}, {"state": "failed"})
    sweep = write_sweep(tmp_path / "sweep", [*runs, failed])
    (sweep / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(sweep / "figures" / "shd_by_edge_weight.png")
    assert main(["report", str(sweep)]) == 0
    page = Cells((sweep / "report.html").read_text())
    header = page.rows[0]
    assert header[:4] == ["run", "state", "edge_weight", "seed"]
    assert [row[0] for row in page.rows[1:8]] == [
        *(f"edge_weight={weight},seed={seed}" for weight in ("1.0", "3.0") for seed in (0, 2, 3)),
        "edge_weight=9.0,seed=0",
    ]
    assert ["1", "3", "2 (0 to 3)"] in [row[:3] for row in page.rows]
    assert ["edge_weight=9.0,seed=0", "TrainingError: the loss became nan"] in page.rows
    assert len(page.pictures) == 1


def test_the_table_can_be_read_back_bit_for_bit(tmp_path: Path) -> None:
    third = 100 / 3
    run = write_run(tmp_path / "run", reconstruction=third)
    (row,) = csv.DictReader(io.StringIO(as_csv([read_record(run)])))
    assert float(row["reconstruction.psnr_db"]) == third
    assert (row["run"], row["state"], row["seed"], row["edges"]) == ("run", "finished", "0", "4")
    assert "position_latents" not in row


def test_a_run_that_was_evaluated_before_its_end_is_not_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    metrics = run / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"step": 10', '"step": 5'))
    record = read_record(run)
    assert (record.state, record.metrics) == ("part-done", {})


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no run in .*nowhere"):
        read_records([tmp_path / "nowhere"])
    with pytest.raises(RunFolderError, match=r"no run of the sweep in .*empty has begun"):
        read_records([write_sweep(tmp_path / "empty", [])])
    run = write_run(tmp_path / "run")
    (run / "metrics.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"metrics\.json is not readable JSON .* `causalvae-fast evaluate"):
        read_record(run)
