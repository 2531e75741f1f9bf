"""The configuration of the experiment with ovals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from causalvae_fast.data.ovals import COLUMNS, IMAGE_SIZE, ROTATIONS, ROWS, SCALES
from causalvae_fast.models.image_vae import ImageVAEConfig
from causalvae_fast.training.config_errors import ConfigError, check_device, check_numbers

_IMAGES = SCALES * ROTATIONS * COLUMNS * ROWS


@dataclass(frozen=True)
class OvalsConfig:
    """The experiment with ovals: their position follows a parabola (section 5.1 of the paper)."""

    run: Annotated[Path, tyro.conf.arg(name="out", aliases=("--run",))] = Path("runs/ovals")
    """Folder for the results."""
    samples: int = _IMAGES
    """Images to train on, chosen at random."""
    epochs: int = 12
    """Passes over them."""
    batch_size: int = 100
    """Images in a step, in each process."""
    optimizer: str = "adam"
    """adam or adagrad."""
    learning_rate: float = 1e-3
    """With Adam it rises over the first 100 steps and falls to 0 over the last 20 %."""
    reconstruction_weight: float = 0.2
    """Of the squared error, summed over pixels. At 1 one latent is given the precision to fold over the plane."""
    beta: float = 1.0
    """Of the KL divergence."""
    warm_up: float = 0.06
    """Fraction of the training over which beta rises from near 0; without it the KL divergence falls to 0."""
    open_in_order: bool = True
    """Open the latents of the causal prior in causal order. Opened at once, y or |x| comes first and takes z1."""
    guide_weight: float = 20.0
    """Of the squared distance of z1 from the first component of blurred images; falls to 0 until guide_end."""
    guide_end: float = 0.15
    """Fraction of the training until which z1 is guided."""
    child_start: float = 0.3
    """Fraction of the training after which z2 is opened; before, the decoder gets z1^2 in its place."""
    rest_start: float = 0.7
    """Fraction of the training after which the other latents are opened."""
    opening: float = 0.05
    """Fraction of the training that the opening takes."""
    seed: int = 0
    """Of the order of the data, initial weights and noise."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    model: ImageVAEConfig = field(default_factory=ImageVAEConfig)
    """The model."""

    def __post_init__(self) -> None:
        check_numbers(self, ("samples", "epochs", "batch_size"), at_least=1)
        check_numbers(self, ("learning_rate", "opening", "guide_end"), above=0)
        check_numbers(self, ("reconstruction_weight", "beta", "guide_weight"), at_least=0)
        check_numbers(
            self, ("warm_up", "guide_end", "child_start", "rest_start", "opening"), at_least=0, at_most=1
        )
        check_numbers(self, ("samples",), at_most=_IMAGES)
        if self.child_start > self.rest_start:
            raise ConfigError(
                "child_start must not be after rest_start, since z2 opens before the latents without parents, "
                f"got {self.child_start} and {self.rest_start}"
            )
        if self.samples < 2 and self.opens_in_order:
            raise ConfigError(
                "samples must be at least 2, since z1 is guided by the component in which images differ, "
                f"got {self.samples}: take more, or --no-open-in-order"
            )
        check_numbers(self, ("seed",), at_least=0, at_most=2**31 - 1)
        if self.optimizer not in ("adam", "adagrad"):
            raise ConfigError(f"optimizer must be adam or adagrad, got {self.optimizer!r}")
        if (self.model.size, self.model.channels) != (IMAGE_SIZE, 1):
            raise ConfigError(
                f"size must be {IMAGE_SIZE} and channels 1, as the images of this experiment, "
                f"got {self.model.size} and {self.model.channels}"
            )
        check_device(self.device)

    @property
    def opens_in_order(self) -> bool:
        """Whether latents are opened in causal order: an isotropic prior has none."""
        return self.open_in_order and self.model.prior != "isotropic"


PRESETS = {
    "recommended": OvalsConfig(),
    # Appendix E, the whole objective from the first step.
    "paper": OvalsConfig(
        optimizer="adagrad",
        learning_rate=3e-3,
        reconstruction_weight=1.0,
        warm_up=0.0,
        open_in_order=False,
        model=ImageVAEConfig(hidden=64),
    ),
}
