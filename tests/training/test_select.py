"""The sparsest graph that keeps the best reconstruction."""

import math
from pathlib import Path
from typing import Any

import pytest
from sweep_folders import write_run, write_sweep

from causalvae_fast.cli import main
from causalvae_fast.training.results import read_records
from causalvae_fast.training.select import SelectionError, select

Runs = list[tuple[dict[str, Any], dict[str, Any]]]


def runs(weight: float, edges: list[int], reconstruction: list[float], prediction: list[float]) -> Runs:
    """The runs of one weight, a seed for each number."""
    return [
        ({"edge_weight": weight, "seed": seed}, {"edges": e, "reconstruction": r, "prediction": p})
        for seed, (e, r, p) in enumerate(zip(edges, reconstruction, prediction, strict=True))
    ]


# Too weak a penalty keeps all edges; the next two keep the accuracy; too strong a one loses the prediction.
SWEEP = [
    *runs(0.1, [40, 48, 44], [34.4, 34.6, 34.5], [30.5, 30.7, 30.6]),
    *runs(1.0, [5, 6, 5], [34.6, 34.4, 34.5], [30.8, 30.6, 30.7]),
    *runs(3.0, [4, 4, 3], [34.5, 34.4, 34.3], [30.7, 30.5, 28.0]),
    *runs(30.0, [0, 0, 0], [34.5, 34.6, 34.4], [17.0, 17.1, 16.9]),
]


def test_the_sparsest_that_keeps_the_accuracy(tmp_path: Path) -> None:
    records = read_records([write_sweep(tmp_path / "sweep", SWEEP)])
    selection = select(records)
    assert selection.configuration.settings == {"edge_weight": 3.0}
    assert [c.settings["edge_weight"] for c in selection.kept] == [3.0, 1.0, 0.1]
    # Of its runs, not the one with 3 edges, which predicts worse.
    assert selection.run.path.name == "edge_weight=3.0,seed=0"


def test_the_tolerance_is_what_chance_brings_about(tmp_path: Path) -> None:
    """Standard deviations over seeds are 0.1, but for one of the predictions, which does not count."""
    selection = select(read_records([write_sweep(tmp_path / "sweep", SWEEP)]))
    expected = 2 * math.sqrt(math.pi) * 0.1 / math.sqrt(3)
    for name in ("reconstruction.psnr_db", "prediction.psnr_db"):
        assert selection.tolerances[name] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("by", "tolerance", "weight"),
    [
        ((), 0.05, 1.0),  # the medians of 3 are 0.1 and 0.2 dB behind
        ((), 0.5, 3.0),
        ((), 20.0, 30.0),
        (("reconstruction.psnr_db",), 0.05, 30.0),  # a graph without edges reconstructs as well
    ],
)
def test_tolerance_and_metrics_may_be_given(
    tmp_path: Path, by: tuple[str, ...], tolerance: float, weight: float
) -> None:
    records = read_records([write_sweep(tmp_path / "sweep", SWEEP)])
    assert select(records, by, tolerance).configuration.settings == {"edge_weight": weight}


def test_of_equally_sparse_graphs_the_most_accurate(tmp_path: Path) -> None:
    sweep = [*runs(1.0, [4, 4], [34.0, 34.1], [30.0, 30.1]), *runs(3.0, [4, 4], [34.1, 34.2], [30.1, 30.2])]
    selection = select(read_records([write_sweep(tmp_path / "sweep", sweep)]), tolerance=1.0)
    assert selection.run.path.name == "edge_weight=3.0,seed=1"


@pytest.mark.parametrize("state", ["failed", "part-done"])
def test_a_configuration_with_a_run_that_is_not_finished_does_not_compete(tmp_path: Path, state: str) -> None:
    sweep = [*SWEEP, ({"edge_weight": 3.0, "seed": 3}, {"state": state})]
    selection = select(read_records([write_sweep(tmp_path / "sweep", sweep)]))
    assert selection.configuration.settings == {"edge_weight": 1.0}
    assert [c.settings["edge_weight"] for c in selection.left_out] == [3.0]


def test_what_cannot_be_selected_is_said(tmp_path: Path) -> None:
    one = [({"edge_weight": weight, "seed": 0}, {}) for weight in (1.0, 3.0)]
    records = read_records([write_sweep(tmp_path / "one", one)])
    with pytest.raises(SelectionError, match=r"one seed does not say .*: give --tolerance, or more seeds"):
        select(records)
    with pytest.raises(SelectionError, match=r"the runs have no metric mcc: there are shd, edges, recon"):
        select(records, by=["mcc"], tolerance=1.0)
    with pytest.raises(SelectionError, match="no configuration has all its runs finished"):
        select(read_records([write_run(tmp_path / "failed", state="failed")]))
    apart = [*runs(1.0, [4], [34.0], [20.0]), *runs(3.0, [4], [30.0], [30.0])]
    with pytest.raises(SelectionError, match="no configuration is within the tolerance of the best in all of"):
        select(read_records([write_sweep(tmp_path / "apart", apart)]), tolerance=1.0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sweep(tmp_path / "sweep", SWEEP)
    assert main(["select", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "edge_weight = 3.0   3      4      34.4                    30.5                selected" in out
    assert out.endswith(f"{folder / 'edge_weight=3.0,seed=0'}\n")
    assert main(["select", str(folder), "--tolerance", "-1"]) == 1
    assert "--tolerance must be at least 0, got -1" in capsys.readouterr().err
    assert main(["select", str(tmp_path / "nowhere")]) == 1
    assert "there is no run in" in capsys.readouterr().err
