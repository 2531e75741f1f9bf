"""The training loop: it learns, resumes bit for bit, stops when asked, and keeps its run folder in order."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from causalvae_fast.training.checkpoint import CheckpointError, load_checkpoint
from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import RunFolder, RunFolderError, load_run
from causalvae_fast.training.trainer import Trainer, TrainingError, train

MakeConfig = Callable[..., SpritesConfig]


def checkpoint(config: SpritesConfig) -> dict[str, Tensor]:
    return load_checkpoint(RunFolder(config.run).checkpoint)[0]


def press_ctrl_c_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next training is sent SIGINT once it has done that many steps."""
    update = ProgressReport.update

    def pressing(report: ProgressReport, at: int, *rest: object) -> None:
        update(report, at, *rest)  # type: ignore[arg-type]
        if at == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressReport, "update", pressing)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("step", [4, 3, 6])  # at the end of the first epoch of 4 steps, and within an epoch
def test_resumed_training_equals_straight_training_bit_for_bit(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    straight, stopped = tiny("straight"), tiny("stopped")
    assert train(straight)
    with monkeypatch.context() as patch:
        press_ctrl_c_after(step, patch)
        assert not train(stopped)
    interrupted, metadata = load_checkpoint(RunFolder(stopped.run).checkpoint)
    assert metadata["step"] == step
    assert not same(interrupted, checkpoint(straight))
    torch.manual_seed(999)  # the process that resumes has other random numbers
    assert train(stopped, resume=True)
    # Weights, the optimizer's moments and the states of the random generators.
    assert same(checkpoint(straight), checkpoint(stopped))


def test_the_seed_decides(tiny: MakeConfig) -> None:
    configs = [tiny("one", seed=1), tiny("same", seed=1), tiny("other", seed=2)]
    for config in configs:
        train(config)
    one, again, other = (checkpoint(config) for config in configs)
    assert same(one, again)
    assert not torch.equal(one["model.to_log_scale.weight"], other["model.to_log_scale.weight"])


def test_the_reconstruction_improves(tiny: MakeConfig) -> None:
    config = tiny(samples=512, epochs=8, learning_rate=5e-3)
    train(config)
    events = EventAccumulator(str(RunFolder(config.run).tensorboard)).Reload()
    assert {"train/loss", "train/reconstruction", "train/prediction", "train/kl", "train/edges"} <= set(
        events.Tags()["scalars"]
    )
    error = [event.value for event in events.Scalars("train/reconstruction")]
    assert sum(error[-3:]) < 0.85 * sum(error[:3])


def test_the_noise_waits_and_then_is_learned(tiny: MakeConfig) -> None:
    train(tiny("waits", noise_start=1.0))
    train(tiny("learns", noise_start=0.5))
    assert load_run(tiny("waits").run).model.prior.log_sigma.count_nonzero() == 0
    assert load_run(tiny("learns").run).model.prior.log_sigma.count_nonzero() > 0


def test_logits_stay_within_their_bound(tiny: MakeConfig) -> None:
    config = tiny(edge_logit_bound=0.5, edge_learning_rate=5.0)
    train(config)
    logits = checkpoint(config)["model.prior.edges.logits"]
    assert logits.abs().max().item() == pytest.approx(0.5)


def test_the_edge_penalty_waits_for_its_start(tiny: MakeConfig) -> None:
    """Without any other force on them, the logits fall, and not before the penalty starts."""
    alone = {"reconstruction_weight": 0.0, "prediction_weight": 0.0, "kl_weight": 0.0}
    train(tiny("never", edge_start=1.0, **alone))
    train(tiny("always", edge_start=0.0, **alone))
    never, always = (load_run(tiny(run).run).model.prior.expected_edges() for run in ("never", "always"))
    assert never.item() == pytest.approx(48 * 0.7, rel=1e-5)
    assert always < never - 0.1


def test_a_folder_with_a_run_is_not_overwritten_by_accident(tiny: MakeConfig) -> None:
    config = tiny(epochs=1)
    train(config)
    before = checkpoint(config)
    with pytest.raises(RunFolderError, match=r"holds a run already: .*--resume.*--overwrite"):
        train(tiny(epochs=1, seed=5))
    assert same(before, checkpoint(config))
    train(tiny(epochs=1, seed=5), overwrite=True)
    assert not same(before, checkpoint(config))


def test_resume_refuses_a_truncated_checkpoint(tiny: MakeConfig) -> None:
    config = tiny(epochs=1)
    train(config)
    path = RunFolder(config.run).checkpoint
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated or foreign"):
        train(config, resume=True)


def test_resume_refuses_the_checkpoint_of_another_model(tiny: MakeConfig) -> None:
    config = tiny(epochs=1)
    train(config)
    folder = RunFolder(config.run)
    folder.config.write_text(folder.config.read_text().replace("hidden: 16", "hidden: 32"))
    with pytest.raises(CheckpointError, match="another model"):
        train(folder.read_config(), resume=True)
    with pytest.raises(CheckpointError, match="another model"):
        load_run(config.run)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    update = Trainer._update

    def poisoned(trainer: Trainer, frames: Tensor, background: Tensor) -> dict[str, float]:
        if trainer.step == 6:
            background = torch.full_like(background, float("nan"), dtype=torch.float32)
        return update(trainer, frames, background)

    monkeypatch.setattr(Trainer, "_update", poisoned)
    with pytest.raises(TrainingError, match="loss became nan in step 7"):
        train(config)
    assert load_checkpoint(RunFolder(config.run).checkpoint)[1]["step"] == 4
    assert all(value.isfinite().all() for value in checkpoint(config).values())


def test_fewer_samples_than_a_step_takes(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="8 samples are fewer than one step takes"):
        train(tiny(samples=8))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="device 'cuda' is not available"):
        train(tiny(device="cuda"))


def test_no_file_of_a_run_is_a_pickle(tiny: MakeConfig) -> None:
    config = tiny(epochs=1)
    train(config)
    files = {path.relative_to(config.run) for path in config.run.rglob("*") if path.is_file()}
    assert {Path("config.yaml"), Path("checkpoint.safetensors")} <= files
    assert all(path.parts[0] in ("config.yaml", "checkpoint.safetensors", "tensorboard") for path in files)
