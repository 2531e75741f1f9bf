"""The configuration of a training on the user's own images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from causalvae_fast.models.image_vae import ImageVAEConfig
from causalvae_fast.training.config_errors import check_numbers
from causalvae_fast.training.own_data import check_own


@dataclass(frozen=True)
class UserImageVAEConfig(ImageVAEConfig):
    """An image VAE of which the data say the size."""

    latents: int = 4
    """Latents of an image. Their order is that of causes: an edge goes from a latent to a later one only."""
    prior: str = "mlp"
    """mlp: edges and a network for each latent are learned, the outputs normalised, as the direction of an edge
    can be told from images only if the functions are not linear. linear: edges and linear functions. quadratic:
    z2 = z1^2 + noise. isotropic: N(0, I), as in a plain VAE."""
    size: Annotated[int, tyro.conf.Suppress] = 64
    width: Annotated[int | None, tyro.conf.Suppress] = None
    channels: Annotated[int, tyro.conf.Suppress] = 1
    convolutional: Annotated[bool, tyro.conf.Suppress] = False


@dataclass(frozen=True)
class ImagesConfig:
    """The user's own images."""

    data: Path | None = None
    """A .npy file with images (N, H, W) or (N, H, W, C), uint8 or float in [0, 1], or a folder of image files."""
    run: Annotated[Path, tyro.conf.arg(name="out", aliases=("--run",))] = Path("runs/images")
    """Folder for the results."""
    held_out: float = 0.1
    """Fraction of the images that are not trained on, drawn at random, on which the run is evaluated."""
    epochs: int = 0
    """Passes over the images; 0 for as many as make about 3,000 steps."""
    batch_size: int = 64
    """Images in a step, in each process."""
    networks: str = "auto"
    """perceptron, convolutional, or auto: convolutional above 32 x 32 pixels."""
    learning_rate: float = 1e-3
    """Of encoder and decoder (Adam). All rates rise over the first 100 steps and fall to 0 over the last 40 %."""
    mechanism_learning_rate: float = 5e-3
    """Of the functions of the SEM, and of its noise."""
    edge_learning_rate: float = 5e-2
    """Of the edges' logits."""
    nats: float = 50.0
    """What all that varies between the images is worth, in nats: the weight of the squared error is this over the
    variance of the images. More gives sharper images, and latents that the prior shapes less."""
    beta: float = 1.0
    """Of the KL divergence."""
    warm_up: float = 0.06
    """Fraction of the training over which beta rises from near 0; without it the KL divergence falls to 0."""
    edge_weight: float = 0.3
    """Of the expected number of edges."""
    edge_start: float = 0.3
    """Fraction of the training after which edges are penalised."""
    edge_logit_bound: float = 5.0
    """The edges' logits stay within -bound and bound."""
    noise_start: float = 0.3
    """Fraction of the training after which the noise of the SEM is learned; it is 1 before."""
    seed: int = 0
    """Of the held-out images, the order of the others, initial weights and noise."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    samples: Annotated[int, tyro.conf.Suppress] = 0
    """Images to train on; the data say."""
    fingerprint: Annotated[str, tyro.conf.Suppress] = ""
    """Of the data."""
    model: UserImageVAEConfig = field(default_factory=UserImageVAEConfig)
    """The model."""

    def __post_init__(self) -> None:
        check_own(self)
        check_numbers(self, ("beta",), at_least=0)
        check_numbers(self, ("warm_up",), at_least=0, at_most=1)
