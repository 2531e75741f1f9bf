"""Trainings on the user's own images and videos: from command to figures, resumed, and with data that are bad."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.cli import main
from causalvae_fast.data import UserImages
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.posterior import Posterior
from causalvae_fast.training.checkpoint import load_checkpoint
from causalvae_fast.training.config import ConfigError, ImagesConfig, VideoConfig, from_yaml, to_yaml
from causalvae_fast.training.images import ImagesExperiment
from causalvae_fast.training.own_evaluation import evaluate_images
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import load_run
from causalvae_fast.training.trainer import train
from causalvae_fast.training.video import VideoExperiment

IMAGES = ["train", "images", "--batch-size", "16", "--epochs", "2", "--hidden", "8", "--latents", "3"]
VIDEO = [
    "train",
    "video",
    "--batch-size",
    "16",
    "--epochs",
    "2",
    "--hidden",
    "8",
    "--channels",
    "2",
    "--latents",
    "2",
]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images.npy (72, 8, 10), of which 64 are trained on, and videos.npy (10, 6, 8, 10, 3), to read only."""
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "images.npy", noise(72, 8, 10))
    np.save(folder / "videos.npy", noise(10, 6, 8, 10, 3))
    return folder


def images_config(run: Path, data: Path, **changes: Any) -> ImagesConfig:
    defaults: dict[str, Any] = {"batch_size": 16, "epochs": 2, "held_out": 1 / 9, "device": "cpu"}
    return ImagesConfig(run=run, data=data / "images.npy", **(defaults | changes))


def video_config(run: Path, data: Path, **changes: Any) -> VideoConfig:
    defaults: dict[str, Any] = {"batch_size": 8, "epochs": 2, "background_from": "median", "device": "cpu"}
    return VideoConfig(run=run, data=data / "videos.npy", **(defaults | changes))


def tensors(run: Path) -> dict[str, Tensor]:
    return load_checkpoint(run / "checkpoint.safetensors")[0]


def press_ctrl_c_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    update = ProgressReport.update

    def pressing(report: ProgressReport, at: int, *rest: Any) -> None:
        update(report, at, *rest)
        if at == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressReport, "update", pressing)


@pytest.mark.parametrize("make", [images_config, video_config])
@pytest.mark.parametrize("step", [4, 5])  # at the end of the first epoch of 4 steps, and within an epoch
def test_resumed_training_equals_straight_training_bit_for_bit(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., ImagesConfig | VideoConfig],
    step: int,
) -> None:
    straight, stopped = make(tmp_path / "straight", data), make(tmp_path / "stopped", data)
    assert train(straight)
    with monkeypatch.context() as patch:
        press_ctrl_c_after(step, patch)
        assert not train(stopped)
    torch.manual_seed(999)
    assert train(stopped, resume=True)
    expected, actual = tensors(straight.run), tensors(stopped.run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_the_command_line_on_images(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([*IMAGES, "--data", str(data / "images.npy"), "--out", str(run)]) == 0
    assert f"causalvae-fast evaluate {run}; causalvae-fast figures {run}" in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["held_out"] == 7
    assert {"edges", "expected_edges", "kl", "reconstruction", "prior_distance"} <= metrics.keys()
    assert f"KL divergence                {metrics['kl']:.2f} nats" in capsys.readouterr().out
    assert main(["figures", str(run)]) == 0
    drawn = {path.name for path in (run / "figures").glob("*.png")}
    names = ("architecture", "graph", "prior_posterior", "noise_grid", "reconstruction")
    assert drawn == {f"{name}.png" for name in names}
    model = cvf.load(run)
    assert isinstance(model, ImageVAE)
    assert (model.config.image, model.config.convolutional, model.config.prior) == ((8, 10, 1), False, "mlp")
    assert main(["extrapolate", str(run)]) == 1


def test_the_command_line_on_videos(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--data", str(data / "videos.npy"), "--out", str(run), "--networks", "convolutional"]
    assert main([*VIDEO, *options, "--background-from", "median"]) == 0
    assert main(["evaluate", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["held_out"] == 4  # windows of 3 in the 6 frames of one video
    assert {"edges", "kl", "reconstruction", "prediction", "frame_before", "background_alone"} <= metrics.keys()
    assert main(["figures", str(run)]) == 0
    drawn = {path.name for path in (run / "figures").glob("*.png")}
    names = ("architecture", "graph", "latents", "interventions", "extrapolation")
    assert drawn == {f"{name}.png" for name in names}
    assert main(["extrapolate", str(run), "--steps", "2"]) == 0
    with np.load(run / "extrapolation.npz", allow_pickle=False) as arrays:
        assert arrays["truth"].shape == arrays["predicted"].shape == (1, 4, 8, 10, 3)
        np.testing.assert_allclose(
            arrays["truth"], np.load(data / "videos.npy")[arrays["videos"], :4] / 255, atol=1e-6
        )
    capsys.readouterr()
    assert main(["extrapolate", str(run), "--steps", "5"]) == 1
    assert "steps must be at most 4" in capsys.readouterr().err
    model = cvf.load(run)
    assert isinstance(model, VideoVAE)
    assert model.config.convolutional
    assert model.config.background


def test_folders_of_files(tmp_path: Path) -> None:
    for video in range(4):
        folder = tmp_path / "videos" / str(video)
        folder.mkdir(parents=True)
        for t, frame in enumerate(noise(4, 8, 10)):
            Image.fromarray(frame + np.uint8(video)).save(folder / f"{t}.png")
    run = tmp_path / "run"
    assert main([*VIDEO, "--batch-size", "4", "--data", str(tmp_path / "videos"), "--out", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text())["prior_distance"] is None  # of two windows
    assert main(["figures", str(run)]) == 0
    run = tmp_path / "images"
    source = tmp_path / "videos" / "0"
    assert main([*IMAGES, "--batch-size", "2", "--data", str(source), "--out", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["figures", str(run)]) == 0


@pytest.mark.parametrize("prior", ["linear", "isotropic", "quadratic"])
def test_every_prior_is_trained_and_drawn(tmp_path: Path, data: Path, prior: str) -> None:
    run = tmp_path / "run"
    options = ["--prior", prior, "--epochs", "1", "--data", str(data / "images.npy"), "--out", str(run)]
    assert main([*IMAGES, *options]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["figures", str(run)]) == 0


def test_networks_are_convolutional_above_32_pixels(tmp_path: Path) -> None:
    for side, expected in ((32, False), (33, True)):
        np.save(tmp_path / "images.npy", noise(20, 8, side))
        assert ImagesExperiment(images_config(tmp_path, tmp_path)).config.model.convolutional is expected
        np.save(tmp_path / "videos.npy", noise(3, 6, 8, side))
        assert VideoExperiment(video_config(tmp_path, tmp_path)).config.model.convolutional is expected
        chosen = images_config(tmp_path, tmp_path, networks="perceptron")
        assert ImagesExperiment(chosen).config.model.convolutional is False


def test_the_weight_of_the_error_is_that_of_the_variance(tmp_path: Path, data: Path) -> None:
    """The mean image has an error that is worth as many nats as the configuration says."""
    experiment = ImagesExperiment(images_config(tmp_path, data, nats=30.0))
    images = np.load(data / "images.npy") / 255
    error = np.square(images - images.mean(0)).sum((1, 2)).mean()
    assert experiment.weight * error == pytest.approx(30)


def test_bad_data_leave_the_run_before(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = [*IMAGES, "--out", str(run)]
    assert main([*arguments, "--data", str(data / "images.npy")]) == 0
    assert main(["evaluate", str(run)]) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    bad = np.random.default_rng(0).random((72, 8, 10))
    bad[40, 3, 3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    capsys.readouterr()
    assert main([*arguments, "--data", str(tmp_path / "bad.npy"), "--overwrite"]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'bad.npy'}[40] holds NaN: mend or remove that frame" in error
    assert len(error.strip().splitlines()) == 1
    assert main([*arguments, "--overwrite"]) == 1
    assert "data must be given" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_data_that_moved_are_named_and_can_be_given_anew(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, moved, run = tmp_path / "images.npy", tmp_path / "moved.npy", tmp_path / "run"
    moving.write_bytes((data / "images.npy").read_bytes())
    with monkeypatch.context() as patch:
        press_ctrl_c_after(5, patch)
        assert main([*IMAGES, "--data", str(moving), "--out", str(run)]) == 130
    moving.rename(moved)
    resume = ["train", "images", "--out", str(run), "--resume"]
    for command in (resume, ["evaluate", str(run)], ["figures", str(run)]):
        capsys.readouterr()
        assert main(command) == 1
        error = capsys.readouterr().err
        assert f"no data at {moving}, which the run in {run} is trained on" in error
        assert "--resume --data" in error
    np.save(tmp_path / "others.npy", noise(72, 8, 10) ^ 1)
    assert main([*resume, "--data", str(tmp_path / "others.npy")]) == 1
    assert (
        f"others.npy holds other data than those that the run in {run} was started with" in capsys.readouterr().err
    )
    assert main([*resume, "--data", str(moved)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert load_run(run).config.data == moved  # type: ignore[union-attr]


def test_a_perfect_model_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reconstructs what it sees, with posteriors that are the prior."""
    np.save(tmp_path / "images.npy", noise(4000, 4, 4))
    experiment = ImagesExperiment(images_config(tmp_path, tmp_path, held_out=0.25))
    experiment.make_model()
    model = experiment.model.eval()
    assert model.prior.edges is not None
    with torch.no_grad():
        model.prior.edges.logits.fill_(-4.0)
        model.prior.mechanism.mechanism.b_out.zero_()  # type: ignore[union-attr]
        model.prior.mechanism.mechanism.w_out.zero_()  # type: ignore[union-attr]
        model.prior.mechanism.norm.running_mean.zero_()  # type: ignore[union-attr]
    seen: list[Tensor] = []

    def posterior(pixels: Tensor) -> Posterior:
        seen.append(pixels)
        loc = torch.randn(len(pixels), 4)
        return Posterior(loc, torch.full_like(loc, 1e-3), None)

    monkeypatch.setattr(model, "posterior", posterior)
    monkeypatch.setattr(model, "decode", lambda z: seen[-1].unflatten(1, (4, 4, 1)))
    metrics = evaluate_images(model, UserImages(tmp_path / "images.npy", held_out=0.25))
    assert metrics["held_out"] == 1000
    assert metrics["reconstruction"]["pixel_r2"] == 1
    assert metrics["mean_image"]["pixel_r2"] == pytest.approx(0, abs=1e-6)
    assert metrics["edges"] == []
    assert metrics["expected_edges"] == pytest.approx(6 * torch.sigmoid(torch.tensor(-4.0)).item())
    distance = metrics["prior_distance"]
    assert distance["sliced_wasserstein"] < 2 * distance["sliced_wasserstein_of_chance"]
    assert metrics["latent_std"] == pytest.approx(4 * [1], abs=0.1)


def test_configurations_are_read_back(tmp_path: Path, data: Path) -> None:
    experiments = (ImagesExperiment(images_config(tmp_path, data)), VideoExperiment(video_config(tmp_path, data)))
    for experiment in experiments:
        (tmp_path / "config.yaml").write_text(to_yaml(experiment.config))
        assert from_yaml(tmp_path / "config.yaml") == experiment.config


@pytest.mark.parametrize(
    ("name", "value"),
    [("held_out", 0.0), ("held_out", 1.0), ("networks", "deep"), ("nats", 0.0), ("epochs", -1), ("seed", -1)],
)
@pytest.mark.parametrize("kind", [ImagesConfig, VideoConfig])
def test_values_out_of_range_are_named(kind: type[ImagesConfig | VideoConfig], name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be"):
        kind(**{name: value})


def test_an_unknown_background_is_named() -> None:
    with pytest.raises(ConfigError, match="background_from must be none or median, got 'mean'"):
        VideoConfig(background_from="mean")
