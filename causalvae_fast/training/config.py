"""The configuration of a training run: the command line, and the YAML file beside the results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_type_hints

import tyro
import yaml

from causalvae_fast.data.sprites import FRAME_SIZE
from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config_errors import ConfigError, check_device, check_numbers
from causalvae_fast.training.images_config import ImagesConfig
from causalvae_fast.training.ovals_config import OvalsConfig
from causalvae_fast.training.video_config import VideoConfig

__all__ = ["EXPERIMENTS", "ConfigError", "SpritesConfig", "TrainConfig", "experiment_name", "from_yaml", "to_yaml"]


@dataclass(frozen=True)
class SpritesConfig:
    """The sprite experiment: a character that moves linearly over a background (section 5.2 of the paper)."""

    # torchrun takes any --run, even one behind the name of the program, for an abbreviation of its own --run-path:
    # the option that works everywhere is --out.
    run: Annotated[Path, tyro.conf.arg(name="out", aliases=("--run",))] = Path("runs/sprites")
    """Folder for the results."""
    samples: int = 20_000
    """Videos to train on."""
    epochs: int = 18
    """Passes over them."""
    batch_size: int = 128
    """Videos in a step, in each process."""
    learning_rate: float = 2e-3
    """Of encoder and decoder (Adam). It rises over the first 100 steps and falls to 0 over the last 40 %."""
    mechanism_learning_rate: float = 1e-2
    """Of the coefficients: they go from 0 to 2 while the encoder moves little."""
    edge_learning_rate: float = 5e-2
    """Of the edges' logits: the penalty alone must close, within the run, an edge that brings nothing."""
    reconstruction_weight: float = 0.5
    """Of the squared error of the three frames: the likelihood of pixels with a variance of 1."""
    prediction_weight: float = 1.0
    """Of the squared error of frame 3 decoded from f(z1, z2)."""
    kl_weight: float = 1.0
    """Of the KL divergence from the causal prior, from the first step on. Raised from 0, or below half of this, it
    lets a third and a fourth latent share the position, with edges between them that stay."""
    edge_weight: float = 3.0
    """Of the expected number of edges. At 1, edges into a latent that holds what is left to say of the position
    stayed in two runs of six."""
    edge_start: float = 0.3
    """Fraction of the training after which edges are penalised: before, their coefficients are not learned yet."""
    edge_logit_bound: float = 5.0
    """The edges' logits stay within -bound and bound. Unbounded, the sigmoid saturates while all latents are still
    in use, and the penalty has no gradient left to close the edges of those that drop out later."""
    noise_start: float = 0.6
    """Fraction of the training after which the noise of the SEM is learned. Noise of 1 throughout leaves the
    coefficients 8 % too large; noise that is learned from the start lets unneeded latents live on."""
    seed: int = 0
    """Of data, initial weights and noise."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    sprite: Path | None = None
    """Image file of your own character, with alpha if it has it."""
    backgrounds: Path | None = None
    """Directory of your own images, to cut backgrounds from."""
    model: VideoVAEConfig = field(default_factory=VideoVAEConfig)
    """The model."""

    def __post_init__(self) -> None:
        check_numbers(self, ("samples", "epochs", "batch_size"), at_least=1)
        rates = ("learning_rate", "mechanism_learning_rate", "edge_learning_rate")
        check_numbers(self, (*rates, "edge_logit_bound"), above=0)
        weights = ("reconstruction_weight", "prediction_weight", "kl_weight", "edge_weight")
        check_numbers(self, weights, at_least=0)
        check_numbers(self, ("edge_start", "noise_start"), at_least=0, at_most=1)
        check_numbers(self, ("seed",), at_least=0, at_most=2**31 - 1)
        if self.model.size != FRAME_SIZE:
            raise ConfigError(
                f"size must be {FRAME_SIZE}, as the videos of this experiment, got {self.model.size}"
            )
        check_device(self.device)


TrainConfig = SpritesConfig | OvalsConfig | ImagesConfig | VideoConfig
EXPERIMENTS: dict[str, type[TrainConfig]] = {
    "sprites": SpritesConfig,
    "ovals": OvalsConfig,
    "images": ImagesConfig,
    "video": VideoConfig,
}


def experiment_name(config: TrainConfig) -> str:
    """The name of the experiment, as `causalvae-fast train` takes it."""
    return next(name for name, kind in EXPERIMENTS.items() if type(config) is kind)


def to_yaml(config: TrainConfig) -> str:
    """The configuration as YAML that `from_yaml` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        return str(value) if isinstance(value, Path) else value

    return yaml.safe_dump(
        {"experiment": experiment_name(config)} | plain(dataclasses.asdict(config)), sort_keys=False
    )


def from_yaml(path: Path) -> TrainConfig:
    """The configuration in a file, of the experiment that its entry of this name says: sprites if there is none.

    Raises:
        ConfigError: if there is no such file, if it is not YAML, or if an entry is unknown, has the wrong type or
            is out of range; the message names the file.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration at {path}: give the folder of a training run") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML ({error}): restore it or train again") from error
    experiment = content.pop("experiment", "sprites") if isinstance(content, dict) else "sprites"
    if not isinstance(experiment, str) or experiment not in EXPERIMENTS:
        names = list(EXPERIMENTS)
        known = f"{', '.join(names[:-1])} or {names[-1]}"
        raise ConfigError(f"{path}: experiment must be {known}, got {experiment!r}")
    config: TrainConfig = _build(EXPERIMENTS[experiment], content, path)
    return config


def _build(cls: type[Any], content: Any, path: Path) -> Any:
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not hold the entries of a configuration: restore it or train again")
    hints = get_type_hints(cls)
    unknown = sorted(str(name) for name in content if name not in hints)
    if unknown:
        raise ConfigError(f"{path} has unknown entries: {', '.join(unknown)}; remove them")
    values = {name: _convert(name, value, hints[name], path) for name, value in content.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _convert(name: str, value: Any, kind: Any, path: Path) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, path)
    if isinstance(kind, UnionType):  # X | None
        if value is None:
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    if kind is Path:
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {name} must be a path, got {value!r}")
        return Path(value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: {name} must be {kind.__name__}, got {value!r}")
    return kind(value)
