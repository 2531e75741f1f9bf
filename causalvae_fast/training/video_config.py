"""The configuration of a training on the user's own videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config_errors import ConfigError, check_numbers
from causalvae_fast.training.own_data import check_own

BACKGROUNDS = ("none", "median")


@dataclass(frozen=True)
class UserVideoVAEConfig(VideoVAEConfig):
    """A video VAE of which the data say the size."""

    size: Annotated[int, tyro.conf.Suppress] = 64
    width: Annotated[int | None, tyro.conf.Suppress] = None
    colours: Annotated[int, tyro.conf.Suppress] = 3
    background: Annotated[bool, tyro.conf.Suppress] = False
    convolutional: Annotated[bool, tyro.conf.Suppress] = False


@dataclass(frozen=True)
class VideoConfig:
    """The user's own videos."""

    data: Path | None = None
    """A .npy file with videos (N, T, H, W) or (N, T, H, W, C), uint8 or float in [0, 1], or a folder with a
    folder of frames for each video, or with the frames of the only one."""
    run: Annotated[Path, tyro.conf.arg(name="out", aliases=("--run",))] = Path("runs/video")
    """Folder for the results."""
    held_out: float = 0.1
    """Fraction of the videos that are not trained on, drawn at random, on which the run is evaluated; of a single
    video, the last part."""
    epochs: int = 0
    """Passes over all windows; 0 for as many as make about 3,000 steps."""
    batch_size: int = 128
    """Windows in a step, in each process."""
    background_from: str = "none"
    """none: the decoder draws whole frames. median: the median of each video's frames is its background, over
    which the decoder blends what moves."""
    networks: str = "auto"
    """perceptron, convolutional, or auto: convolutional above 32 x 32 pixels."""
    learning_rate: float = 2e-3
    """Of encoder and decoder (Adam). All rates rise over the first 100 steps and fall to 0 over the last 40 %."""
    mechanism_learning_rate: float = 1e-2
    """Of the functions of the SEM, and of its noise."""
    edge_learning_rate: float = 5e-2
    """Of the edges' logits: the penalty alone must close, within the run, an edge that brings nothing."""
    nats: float = 40.0
    """What all that varies in a window is worth, in nats: the weight of the squared error is this over the
    variance of a window. More gives sharper frames, and latents that the prior shapes less."""
    prediction: float = 2.0
    """Weight of the error of the last frame decoded from f(z of the frames before), relative to that of a
    frame."""
    kl_weight: float = 1.0
    """Of the KL divergence from the causal prior."""
    edge_weight: float = 3.0
    """Of the expected number of edges."""
    edge_start: float = 0.3
    """Fraction of the training after which edges are penalised: before, their functions are not learned yet."""
    edge_logit_bound: float = 5.0
    """The edges' logits stay within -bound and bound."""
    noise_start: float = 0.6
    """Fraction of the training after which the noise of the SEM is learned; it is 1 before."""
    seed: int = 0
    """Of the held-out videos, the order of the windows, initial weights and noise."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    samples: Annotated[int, tyro.conf.Suppress] = 0
    """Windows to train on; the data say."""
    fingerprint: Annotated[str, tyro.conf.Suppress] = ""
    """Of the data."""
    model: UserVideoVAEConfig = field(default_factory=UserVideoVAEConfig)
    """The model."""

    def __post_init__(self) -> None:
        check_own(self)
        check_numbers(self, ("prediction", "kl_weight"), at_least=0)
        if self.background_from not in BACKGROUNDS:
            raise ConfigError(f"background_from must be {' or '.join(BACKGROUNDS)}, got {self.background_from!r}")
