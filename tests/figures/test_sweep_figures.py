"""The figures of a sweep: medians and spread against a setting."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sweep_folders import write_run, write_sweep

from causalvae_fast.cli import main
from causalvae_fast.figures.sweep import draw_sweep_figures
from causalvae_fast.training.results import read_records


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Axes]]:
    """The axes of each figure that is saved, by the name of its file."""
    figures: dict[str, list[Axes]] = {}
    save = Figure.savefig

    def recording(figure: Figure, path: Path, **options: Any) -> None:
        figures[path.name] = figure.axes
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", recording)
    return figures


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def band(axes: Axes, number: int, x: float) -> tuple[float, float]:
    corners = np.asarray(axes.collections[number].get_paths()[0].vertices)
    at = corners[np.isclose(corners[:, 0], x), 1]
    return at.min(), at.max()


def test_median_and_spread_over_seeds(tmp_path: Path, drawn: dict[str, list[Axes]]) -> None:
    values = {10.0: [31.0, 33.0, 34.0], 0.1: [34.0, 36.0, 35.0]}
    runs = [
        ({"edge_weight": w, "seed": seed}, {"reconstruction": y, "shd": seed})
        for w in values
        for seed, y in enumerate(values[w])
    ]
    runs.append(({"edge_weight": 10.0, "seed": 9}, {"state": "failed"}))
    sweep = write_sweep(tmp_path / "sweep", runs)
    assert main(["figures", str(sweep)]) == 0
    assert {path.name for path in (sweep / "figures").iterdir()} == drawn.keys()
    (axes,) = drawn["reconstruction_by_edge_weight.png"]
    curves = lines(axes)
    assert curves["reconstruction"] == ([0.1, 10.0], [35.0, 33.0])
    assert set(curves) == {"reconstruction", "prediction", "background alone"}
    assert band(axes, 0, 10.0) == (31.0, 34.0)
    assert axes.get_xscale() == "log"
    (axes,) = drawn["shd_by_edge_weight.png"]
    assert lines(axes)["structural Hamming distance"] == ([0.1, 10.0], [1.0, 1.0])
    assert axes.get_ylim()[0] == 0


def test_another_setting_makes_panels(tmp_path: Path, drawn: dict[str, list[Axes]]) -> None:
    runs = [({"edge_weight": w, "model.latents": k, "seed": 0}, {"shd": k}) for w in (0.0, 1.0) for k in (2, 4)]
    draw_sweep_figures(read_records([write_sweep(tmp_path / "sweep", runs)]), tmp_path)
    panels = drawn["shd_by_edge_weight.png"]
    assert [axes.get_title() for axes in panels] == ["model.latents = 2", "model.latents = 4"]
    assert [lines(axes)["structural Hamming distance"][1] for axes in panels] == [[2, 2], [4, 4]]
    draw_sweep_figures(read_records([tmp_path / "sweep"]), tmp_path, "model.latents")
    assert [axes.get_title() for axes in drawn["shd_by_latents.png"]] == ["edge_weight = 0.0", "edge_weight = 1.0"]


def test_zero_has_a_place_beside_powers(tmp_path: Path, drawn: dict[str, list[Axes]]) -> None:
    runs = [({"edge_weight": weight, "seed": 0}, {}) for weight in (0.0, 0.1, 10.0)]
    draw_sweep_figures(read_records([write_sweep(tmp_path / "sweep", runs)]), tmp_path)
    (axes,) = drawn["shd_by_edge_weight.png"]
    assert axes.get_xscale() == "symlog"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.1", "10"]


def test_a_run_is_drawn_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", str(write_run(tmp_path / "run")), "--over", "epochs"]) == 1
    assert "--over is for the figures of a sweep" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    runs = [({"model.latents": k, "kl_weight": w, "seed": 0}, {}) for k in (2, 4) for w in (0.5, 1.0)]
    records = read_records([write_sweep(tmp_path / "sweep", runs)])
    with pytest.raises(ValueError, match=r"do not differ in edge_weight, but in kl_weight, model\.latents: name"):
        draw_sweep_figures(records, tmp_path)
    with pytest.raises(ValueError, match="no run is finished"):
        draw_sweep_figures(read_records([write_run(tmp_path / "run", state="failed")]), tmp_path)
