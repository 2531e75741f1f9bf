"""What a resumed run may change, and what it logs: its own configuration, and each step once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from causalvae_fast.cli import main
from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.ovals_config import OvalsConfig
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import RunFolder, RunFolderError
from causalvae_fast.training.trainer import Trainer, TrainingError, train

MakeConfig = Callable[..., SpritesConfig]


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """The next training ends with `error` once it has done that many steps."""
    update = ProgressReport.update

    def stopping(report: ProgressReport, at: int, *rest: Any) -> None:
        update(report, at, *rest)
        if at == step:
            raise error

    monkeypatch.setattr(ProgressReport, "update", stopping)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 8, "seed": 3}, "batch_size = 8 (the run has 16), seed = 3 (the run has 0)"),
        ({"epochs": 3}, "epochs = 3 (the run has 2)"),
        ({"model": VideoVAEConfig(channels=2, hidden=8)}, "model.hidden = 8 (the run has 16)"),
    ],
)
def test_another_configuration_is_refused(tiny: MakeConfig, changes: dict[str, Any], named: str) -> None:
    config = tiny()
    train(config)
    before = RunFolder(config.run).checkpoint.read_bytes()
    with pytest.raises(ConfigError, match="goes on as it was configured") as caught:
        train(dataclasses.replace(config, **changes), resume=True)
    assert named in str(caught.value)
    assert RunFolder(config.run).checkpoint.read_bytes() == before


def test_another_folder_and_device_are_not(tiny: MakeConfig) -> None:
    config = tiny()
    train(config)
    moved = config.run.rename(config.run.with_name("moved"))
    device = "auto" if not torch.cuda.is_available() else "cpu"
    assert train(dataclasses.replace(config, run=moved, device=device), resume=True)


def test_another_experiment_is_refused(tiny: MakeConfig) -> None:
    config = tiny()
    train(config)
    with pytest.raises(ConfigError, match="of another experiment than ovals"):
        train(OvalsConfig(run=config.run), resume=True)


def test_there_must_be_a_run(tiny: MakeConfig) -> None:
    with pytest.raises(RunFolderError, match="there is no run in"):
        train(tiny("nowhere"), resume=True)


def test_a_preset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for preset in ("paper", "recommended"):
        assert main(["train", "ovals", "--out", str(tmp_path), "--resume", "--preset", preset]) == 1
        assert f"--preset {preset} is where the options of a new run start from" in capsys.readouterr().err


def logged(config: SpritesConfig) -> list[int]:
    events = EventAccumulator(str(RunFolder(config.run).tensorboard)).Reload()
    return [event.step for event in events.Scalars("train/loss")]


@pytest.mark.parametrize("stop", [20, 21, 25])
def test_each_step_is_logged_once(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Checkpoints are at multiples of 4: that at 20 has its step logged, that at 24 resumes before step 30."""
    config = tiny(epochs=8)
    with monkeypatch.context() as patch:
        stop_after(stop, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    # Files are read in the order of their names, which tell seconds: these two may be of the same.
    (first,) = RunFolder(config.run).tensorboard.glob("events.*")
    first.rename(first.with_name("events.out.tfevents.0000000000.first"))
    train(config, resume=True)
    assert logged(config) == [10, 20, 30]


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the writers of scalars: "open", "close"."""
    happened: list[str] = []

    class Recorded(SummaryWriter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            happened.append("open")

        def close(self) -> None:
            super().close()
            happened.append("close")

    monkeypatch.setattr("causalvae_fast.training.trainer.SummaryWriter", Recorded)
    return happened


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_was_logged_is_written_whatever_happens(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, writers: list[str], error: type[BaseException]
) -> None:
    stop_after(3, monkeypatch, error)
    with pytest.raises(error):
        train(tiny())
    assert writers == ["open", "close"]


def test_what_was_logged_is_written_when_the_loss_is_not_finite(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, writers: list[str]
) -> None:
    def poisoned(trainer: Trainer, *_: Tensor) -> dict[str, float]:
        return {"loss": float("nan")}

    monkeypatch.setattr(Trainer, "_update", poisoned)
    with pytest.raises(TrainingError, match="loss became nan"):
        train(tiny())
    assert writers == ["open", "close"]


def test_a_complete_run_logs_nothing_more(tiny: MakeConfig, writers: list[str]) -> None:
    config = tiny()
    assert train(config)
    assert train(config, resume=True)
    assert writers == ["open", "close"]
