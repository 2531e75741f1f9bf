"""Sweeps: interrupted and resumed they come to the same, failures are recorded, and what cannot be is named."""

import csv
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_folders import write_run

from causalvae_fast.cli import main
from causalvae_fast.training.checkpoint import load_checkpoint
from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import RunFolder, RunFolderError
from causalvae_fast.training.sweep import Engine, parse_grid, plan, sweep
from causalvae_fast.training.trainer import Trainer, train

MakeConfig = Callable[..., SpritesConfig]
GRID = {"edge_weight": [0.1, 3.0]}
TINY = ["--samples", "24", "--batch-size", "8", "--channels", "2", "--hidden", "16", "--device", "cpu"]


@pytest.fixture
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalvae_fast.training.evaluate._HELD_OUT_VIDEOS", 40)


def short(tiny: MakeConfig, run: str = "sweep", **changes: Any) -> SpritesConfig:
    """A configuration of 3 steps."""
    return tiny(run, samples=24, batch_size=8, epochs=1, **changes)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def checkpoints(folder: Path) -> dict[str, dict[str, Any]]:
    """What those of all runs hold, to be compared with ==; in what order a file has it is left to chance."""
    found = {}
    for path in folder.glob("*/checkpoint.safetensors"):
        tensors, metadata = load_checkpoint(path)
        found[path.parent.name] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | metadata
    return found


def in_run(number: int, step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something once so many steps of the run of this number, from 1, are done."""
    update, begun = ProgressReport.update, [0]

    def acting(report: ProgressReport, at: int, *rest: Any) -> None:
        begun[0] += at == 1
        update(report, at, *rest)
        if (begun[0], at) == (number, step):
            act()

    monkeypatch.setattr(ProgressReport, "update", acting)


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def break_off() -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("_few_held_out")
def test_interrupted_and_resumed_it_comes_to_the_same_bit_for_bit(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = short(tiny, "straight")
    assert sweep(straight, GRID, [0])
    assert [(row["state"], row["edge_weight"]) for row in table(straight.run)] == [
        *(("finished", "0.1"), ("finished", "3.0"))
    ]
    for act in (press_ctrl_c, break_off):  # with a checkpoint of that step, and without
        stopped = short(tiny, act.__name__)
        with monkeypatch.context() as patch:
            in_run(2, 2, act, patch)
            with pytest.raises(KeyboardInterrupt):
                sweep(stopped, GRID, [0])
        assert [row["state"] for row in table(stopped.run)] == ["finished"]
        torch.manual_seed(999)
        said: list[str] = []
        assert sweep(stopped, GRID, [0], say=said.append)
        assert said[0].endswith(": 1 finished, 1 part-done")
        assert (straight.run / "results.csv").read_text() == (stopped.run / "results.csv").read_text()
        assert checkpoints(straight.run) == checkpoints(stopped.run)


@pytest.mark.usefixtures("_few_held_out")
def test_a_failing_run_is_recorded_and_the_others_go_on(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    base = short(tiny)
    update, attempts = Trainer._update, [0]

    def failing(trainer: Trainer, *batch: torch.Tensor) -> dict[str, float]:
        if trainer.config.edge_weight == 0.1:  # type: ignore[union-attr]
            attempts[0] += 1
            raise RuntimeError("out of\nmemory")
        return update(trainer, *batch)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", failing)
        assert not sweep(base, GRID, [0], say=said.append)
        assert not sweep(base, GRID, [0], say=said.append)
    assert attempts == [1]  # not tried again unasked
    assert "  edge_weight=0.1,seed=0" in said
    failed, finished = table(base.run)
    assert (failed["state"], failed["error"]) == ("failed", "RuntimeError: out of memory")
    assert (failed["shd"], finished["state"]) == ("", "finished")
    error = (base.run / "edge_weight=0.1,seed=0" / "error.txt").read_text()
    assert "Traceback" in error
    assert "in failing" in error
    assert sweep(base, GRID, [0], retry=True)
    assert [row["state"] for row in table(base.run)] == ["finished", "finished"]
    assert not (base.run / "edge_weight=0.1,seed=0" / "error.txt").exists()


@pytest.mark.usefixtures("_few_held_out")
def test_a_run_that_cannot_begin_is_recorded(tiny: MakeConfig, tmp_path: Path) -> None:
    base = short(tiny, sprite=tmp_path / "nobody.png")
    assert not sweep(base, {}, [0])
    assert "no image file at" in table(base.run)[0]["error"]


@pytest.mark.usefixtures("_few_held_out")
def test_values_and_seeds_may_be_added(tiny: MakeConfig) -> None:
    base = short(tiny)
    assert sweep(base, {"model.hidden": [8]}, [1])
    before = checkpoints(base.run)
    assert sweep(base, {"model.hidden": [8, 4]}, [1])
    after = checkpoints(base.run)
    assert len(after) == 2
    assert after | before == after
    assert [(row["model.hidden"], row["seed"]) for row in table(base.run)] == [("4", "1"), ("8", "1")]


@pytest.mark.usefixtures("_few_held_out")
def test_a_run_has_its_threads_and_its_log(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(*_: Any, **__: Any) -> bool:
        seen.append(torch.get_num_threads())
        print("training")
        return train(*_, **__)

    monkeypatch.setattr("causalvae_fast.training.sweep.train", counting)
    base = short(tiny)
    assert sweep(base, {}, [3], Engine(threads=2))
    assert seen == [2]
    assert torch.get_num_threads() == 1
    log = (base.run / "seed=3" / "train.log").read_text()
    assert log.startswith("training\nsprites: 24 videos, seed 3\n")
    assert "structural Hamming distance" in log


def test_what_a_killed_process_left_is_removed(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalvae_fast.training.sweep.train", lambda *_, **__: False)
    base = tiny("sweep")
    debris = base.run / "seed=0" / ".checkpoint.safetensors.77.tmp"
    debris.parent.mkdir(parents=True)
    debris.touch()
    with pytest.raises(KeyboardInterrupt):
        sweep(base, {}, [0])
    assert not debris.exists()


def test_another_base_is_refused(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalvae_fast.training.sweep.train_one", lambda run, _: (run.name, "failed"))
    monkeypatch.setattr("causalvae_fast.training.sweep._write_results", lambda _: None)
    sweep(tiny("sweep"), GRID, [0])
    sweep(tiny("sweep", device="auto"), GRID, [1])
    with pytest.raises(ConfigError, match=r"was begun otherwise, asked for is epochs = 5 \(the run has 2\)"):
        sweep(tiny("sweep", epochs=5), GRID, [0])


def test_the_folder_of_a_run_is_refused(tiny: MakeConfig) -> None:
    write_run(tiny("run").run)
    with pytest.raises(RunFolderError, match="holds a run: give another folder with --out"):
        sweep(tiny("run"), GRID, [0])


def test_the_plan_is_all_combinations(tiny: MakeConfig) -> None:
    runs = plan(tiny("sweep"), {"edge_weight": [0.1, 1.0], "model.learn_log_sigma": [True]}, [4, 5])
    assert [run.name for run in runs] == [
        "edge_weight=0.1,model.learn_log_sigma=true,seed=4",
        "edge_weight=0.1,model.learn_log_sigma=true,seed=5",
        "edge_weight=1,model.learn_log_sigma=true,seed=4",
        "edge_weight=1,model.learn_log_sigma=true,seed=5",
    ]
    config = runs[1].config
    assert (config.seed, config.run.name, config.model.channels) == (5, runs[1].name, 2)  # type: ignore[union-attr]


def test_a_path_makes_one_folder(tiny: MakeConfig) -> None:
    (run,) = plan(tiny("sweep"), {"sprite": [Path("/a/b.png")]}, [0])
    assert run.name == "sprite=%2Fa%2Fb.png,seed=0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["edge_weight"], "a setting must be ENTRY=VALUE,VALUE,..., got 'edge_weight'"),
        (["edge_weight="], "the setting of edge_weight has no values"),
        (["edge_weight=1,1.0"], "edge_weight has the same value twice"),
        (["edge_weight=1", "edge_weight=2"], "edge_weight has the same value twice, or two settings"),
        (["seed=1,2"], "seed is not swept by a setting: --seeds says it"),
        (["run=a,b"], "--out says it"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_grid(SpritesConfig(), settings)


def test_grids_that_cannot_be_are_named() -> None:
    with pytest.raises(ConfigError, match="the grid is empty: there are no values of seeds"):
        plan(SpritesConfig(), GRID, [])
    with pytest.raises(ConfigError, match="seeds must be different ones, got 1, 1"):
        plan(SpritesConfig(), GRID, [1, 1])
    with pytest.raises(ConfigError, match="edge_weight=-1,seed=0: edge_weight must be at least 0, got -1"):
        plan(SpritesConfig(), {"edge_weight": [1.0, -1.0]}, [0])


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1, or -1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"backend": "dask"}, "backend must be loky or ray, got 'dask'"),
        ({"gpus": 1.0}, "gpus must be at least 0, and is for the backend ray alone, got 1"),
    ],
)
def test_engines_that_cannot_be_are_named(engine: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(**engine)


def test_threads_are_the_cores_over_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalvae_fast.training.sweep.cpu_count", lambda: 8)
    assert [Engine(jobs=jobs).threads_of_a_run for jobs in (1, 2, 3, 16, -1)] == [8, 4, 2, 1, 1]
    assert Engine(jobs=2, backend="ray").threads_of_a_run == 1
    assert Engine(jobs=2, threads=3).threads_of_a_run == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "edge_wait=1"], "edge_wait is no entry of the configuration: did you mean edge_weight"),
        (["--set", "edge_weight=a"], "edge_weight must be float, got 'a'"),
        (["--seed", "1"], "--seed is of a single run: give --seeds"),
        (["--resume"], "--resume and --overwrite are options of `causalvae-fast train`"),
    ],
)
def test_options_that_cannot_be_are_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    assert main(["sweep", "sprites", "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("_few_held_out")
def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    options = ["sweep", "sprites", "--out", str(out), "--set", "edge_weight=1,2", "--epochs", "1", *TINY]
    in_run(1, 2, press_ctrl_c, monkeypatch)
    assert main(options) == 130
    assert f"the same command goes on:\n  causalvae-fast {' '.join(options)}\n" in capsys.readouterr().err
    assert load_checkpoint(RunFolder(out / "edge_weight=1,seed=0").checkpoint)[1]["step"] == 2


def test_a_missing_joblib_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("causalvae_fast.training.sweep", "causalvae_fast.training.sweep_command"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert main(["sweep", "sprites", "--out", str(tmp_path)]) == 1
    assert "joblib is not installed: pip install 'causalvae_fast[train,sweep]'" in capsys.readouterr().err
