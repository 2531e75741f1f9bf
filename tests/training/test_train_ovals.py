"""The experiment with ovals: its order of opening, its presets, and that it resumes bit for bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.cli import main
from causalvae_fast.data import OvalImages, make_ovals
from causalvae_fast.models.image_vae import ImageVAE, ImageVAEConfig
from causalvae_fast.posterior import Posterior
from causalvae_fast.training.checkpoint import load_checkpoint
from causalvae_fast.training.config import ConfigError, from_yaml, to_yaml
from causalvae_fast.training.first_component import FirstComponent
from causalvae_fast.training.ovals import OvalsExperiment
from causalvae_fast.training.ovals_config import PRESETS, OvalsConfig
from causalvae_fast.training.ovals_evaluation import evaluate_ovals
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import load_run
from causalvae_fast.training.trainer import train


@pytest.fixture(scope="module")
def ovals() -> OvalImages:
    return make_ovals()


@pytest.fixture(scope="module")
def few(ovals: OvalImages) -> OvalImages:
    """Some of the images, where it does not matter how many there are."""
    some = torch.randperm(len(ovals), generator=torch.Generator().manual_seed(0))[:5000]
    return OvalImages(ovals.bits[some], ovals.factors[some], ovals.centers[some])


@pytest.fixture(autouse=True)
def _drawn_once(ovals: OvalImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causalvae_fast.training.ovals.make_ovals", lambda: ovals)


def tiny(run: Path, **changes: Any) -> OvalsConfig:
    """2 epochs of 4 steps."""
    defaults: dict[str, Any] = {"samples": 64, "batch_size": 16, "epochs": 2, "device": "cpu"}
    return OvalsConfig(run=run, model=ImageVAEConfig(hidden=8), **(defaults | changes))


def tensors(run: Path) -> dict[str, Tensor]:
    return load_checkpoint(run / "checkpoint.safetensors")[0]


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_resumed_training_equals_straight_training_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, optimizer: str
) -> None:
    straight = tiny(tmp_path / "straight", optimizer=optimizer)
    stopped = tiny(tmp_path / "stopped", optimizer=optimizer)
    assert train(straight)
    update = ProgressReport.update

    def pressing(report: ProgressReport, at: int, *rest: Any) -> None:
        update(report, at, *rest)
        if at == step:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressReport, "update", pressing)
        assert not train(stopped)
    torch.manual_seed(999)
    assert train(stopped, resume=True)
    expected, actual = tensors(straight.run), tensors(stopped.run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_latents_open_in_causal_order() -> None:
    experiment = OvalsExperiment(OvalsConfig(child_start=0.3, rest_start=0.7, opening=0.1))
    for progress, expected in ((0.0, [1, 0, 0, 0, 0]), (0.35, [1, 0.5, 0, 0, 0]), (0.75, [1, 1, 0.5, 0.5, 0.5])):
        opened = experiment.opened(progress)
        assert opened is not None
        torch.testing.assert_close(opened, torch.tensor(expected, dtype=torch.float32))
    assert experiment.opened(0.9) is None


@pytest.mark.parametrize("changes", [{"open_in_order": False}, {"model": ImageVAEConfig(prior="isotropic")}])
def test_baselines_are_open_from_the_start(changes: dict[str, Any]) -> None:
    experiment = OvalsExperiment(OvalsConfig(**changes))
    assert experiment.opened(0.0) is None
    assert len(experiment.batch(torch.arange(3), torch.device("cpu"))) == 1


def test_the_first_component_is_the_horizontal_position(ovals: OvalImages) -> None:
    shuffled = torch.randperm(len(ovals), generator=torch.Generator().manual_seed(0))
    component = FirstComponent(ovals.images(shuffled[:1000]))
    score = component(ovals.images(shuffled[1000:2000]))
    x = ovals.factors[shuffled[1000:2000], 0]
    assert torch.corrcoef(torch.stack([score, x]))[0, 1].abs() > 0.9
    assert score.std().item() == pytest.approx(1, abs=0.1)


def test_a_perfect_model(few: OvalImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents that are the factors themselves, some of the images standing for all of them."""
    model = ImageVAE(ImageVAEConfig(hidden=8)).eval()
    z = torch.zeros(len(few), 5)
    z[:, 0], z[:, 1] = few.factors[:, 0], few.factors[:, 1]
    z[:, 2:] = torch.randn(len(few), 3)
    posterior = Posterior(z, torch.full_like(z, 0.01), None)
    monkeypatch.setattr("causalvae_fast.training.ovals_evaluation.encode_ovals", lambda *_: posterior)
    metrics = evaluate_ovals(model, few)
    assert metrics["mcc"] == pytest.approx(1)
    assert metrics["position_latents"] == [0, 1]
    assert metrics["r2"]["y"] == pytest.approx(1)
    assert metrics["r2"]["rotation"] < 0.1
    distance = metrics["prior_distance"]
    assert distance["sliced_wasserstein"] < 0.2  # chance gives 0.05; the data have no tails
    z[:, 1] = few.factors[:, 1].roll(1)
    assert evaluate_ovals(model, few)["prior_distance"]["classifier"] > distance["classifier"] + 0.1


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], few: OvalImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalvae_fast.training.ovals.make_ovals", lambda: few)
    run = tmp_path / "run"
    options = ["--samples", "64", "--batch-size", "16", "--epochs", "1", "--hidden", "8", "--device", "cpu"]
    assert main(["train", "ovals", "--out", str(run), *options]) == 0
    isotropic = tmp_path / "isotropic"
    assert main(["train", "ovals", "--out", str(isotropic), *options, "--prior", "isotropic", "--beta", "4"]) == 0
    assert load_run(isotropic).config.beta == 4  # type: ignore[union-attr]
    assert main(["train", "ovals", "--out", str(run), "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"mcc", "r2", "leakage", "prior_distance"} <= metrics.keys()
    assert f"{metrics['mcc']:.3f}" in capsys.readouterr().out
    assert main(["figures", str(run), "--compare", str(isotropic)]) == 0
    drawn = {path.name for path in (run / "figures").glob("*.png")}
    assert drawn == {
        "architecture.png",
        "graph.png",
        "latent_response.png",
        "noise_grid.png",
        "noise_superimposed.png",
        "prior_posterior.png",
    }
    assert isinstance(cvf.load(run), ImageVAE)
    assert main(["extrapolate", str(run)]) == 1
    assert "is not one of `causalvae-fast train sprites`" in capsys.readouterr().err


def test_the_paper_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[OvalsConfig] = []
    monkeypatch.setattr("causalvae_fast.training.command.train", lambda config, **_: not seen.append(config))
    assert main(["train", "ovals", "--preset", "paper", "--epochs", "3"]) == 0
    assert (seen[0].optimizer, seen[0].learning_rate, seen[0].model.hidden) == ("adagrad", 3e-3, 64)
    assert seen[0].epochs == 3


def test_configuration_round_trip(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        (tmp_path / "config.yaml").write_text(to_yaml(preset))
        assert from_yaml(tmp_path / "config.yaml") == preset
    (tmp_path / "config.yaml").write_text("experiment: squares\n")
    with pytest.raises(ConfigError, match="experiment must be sprites, ovals, images or video, got 'squares'"):
        from_yaml(tmp_path / "config.yaml")


def test_the_child_opens_before_the_rest() -> None:
    with pytest.raises(ConfigError, match=r"child_start must not be after rest_start, .* got 0\.7 and 0\.3"):
        OvalsConfig(child_start=0.7, rest_start=0.3)
    assert OvalsConfig(child_start=0.3, rest_start=0.3).child_start == 0.3


def test_one_image_has_no_first_component(tmp_path: Path, ovals: OvalImages) -> None:
    with pytest.raises(ConfigError, match="samples must be at least 2"):
        tiny(tmp_path, samples=1, batch_size=1)
    assert train(tiny(tmp_path, samples=1, batch_size=1, epochs=1, open_in_order=False))
    image = ovals.images(torch.tensor([7]))
    with pytest.raises(ValueError, match="images must be at least two, got 1"):
        FirstComponent(image)
    with pytest.raises(ValueError, match="images must differ from one another, but all 3 are alike"):
        FirstComponent(image.expand(3, -1, -1))
    assert FirstComponent(ovals.images(torch.tensor([7, 9])))(image).isfinite()


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", 76_801), ("epochs", 0), ("optimizer", "sgd"), ("beta", -1.0), ("child_start", 1.5), ("seed", -1)],
)
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be"):
        OvalsConfig(**{name: value})
