"""`causalvae-fast train`: the configuration of an experiment as command-line options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import tyro

from causalvae_fast.training.config import EXPERIMENTS, ConfigError, SpritesConfig, TrainConfig
from causalvae_fast.training.images_config import ImagesConfig
from causalvae_fast.training.ovals_config import PRESETS, OvalsConfig
from causalvae_fast.training.runs import RunFolder
from causalvae_fast.training.trainer import train
from causalvae_fast.training.video_config import VideoConfig


@dataclass(frozen=True)
class TrainSprites:
    """Train the sprite experiment: a character that moves linearly over a background."""

    config: tyro.conf.OmitArgPrefixes[SpritesConfig] = field(default_factory=SpritesConfig)
    resume: bool = False
    """Continue the run in the folder, with its own configuration."""
    overwrite: bool = False
    """Replace the run in the folder."""


@dataclass(frozen=True)
class TrainOvals:
    """Train the experiment with ovals, whose position follows a parabola."""

    config: tyro.conf.OmitArgPrefixes[OvalsConfig] = field(default_factory=OvalsConfig)
    preset: Literal["recommended", "paper"] | None = None
    """Where the other options start from: what converges to the causal latents (the default), or the settings of
    the paper."""
    resume: bool = False
    """Continue the run in the folder, with its own configuration."""
    overwrite: bool = False
    """Replace the run in the folder."""


@dataclass(frozen=True)
class TrainImages:
    """Train on your own images: a .npy file or a folder."""

    config: tyro.conf.OmitArgPrefixes[ImagesConfig] = field(default_factory=ImagesConfig)
    resume: bool = False
    """Continue the run in the folder, with its own configuration."""
    overwrite: bool = False
    """Replace the run in the folder."""


@dataclass(frozen=True)
class TrainVideo:
    """Train on your own videos: a .npy file or a folder of folders of frames."""

    config: tyro.conf.OmitArgPrefixes[VideoConfig] = field(default_factory=VideoConfig)
    resume: bool = False
    """Continue the run in the folder, with its own configuration."""
    overwrite: bool = False
    """Replace the run in the folder."""


Train = TrainSprites | TrainOvals | TrainImages | TrainVideo
_COMMANDS: dict[str, type[Train]] = {
    "sprites": TrainSprites,
    "ovals": TrainOvals,
    "images": TrainImages,
    "video": TrainVideo,
}


def parse_config(experiment: str, arguments: Sequence[str]) -> TrainConfig:
    """The configuration of a new run, from the options of `causalvae-fast train`.

    Raises:
        ConfigError: if an option cannot be, or is one of how a single run is started.
    """
    parsed, _ = _parse_new(experiment, arguments)
    if parsed.resume or parsed.overwrite:
        raise ConfigError("--resume and --overwrite are options of `causalvae-fast train`: leave them out")
    return parsed.config


def _parse_new(experiment: str, arguments: Sequence[str]) -> tuple[Train, Train]:
    """The options, and what stands for those that are left out."""
    default = _COMMANDS[experiment]()
    parsed = _parse(experiment, arguments, default)
    if isinstance(parsed, TrainOvals):
        start = PRESETS[parsed.preset or "recommended"]
        default = dataclasses.replace(parsed, config=start, resume=False, overwrite=False)
        parsed = _parse(experiment, arguments, default)
    return parsed, default


def train_command(experiment: str, arguments: Sequence[str]) -> bool:
    """Train as the options say; True when complete, False when interrupted.

    Raises:
        ConfigError: if an option cannot be, or differs from the run that is resumed.
    """
    parsed, default = _parse_new(experiment, arguments)
    if parsed.resume and parsed.overwrite:
        raise ConfigError("--resume continues the run in the folder, --overwrite replaces it: give one of them")
    if parsed.resume:
        if isinstance(parsed, TrainOvals) and parsed.preset is not None:
            raise ConfigError(
                f"--preset {parsed.preset} is where the options of a new run start from, but --resume continues "
                "one with its own configuration: leave --preset out, or start a new run"
            )
        stored = RunFolder(parsed.config.run).read_config_of(EXPERIMENTS[experiment])
        # What is not on the command line comes from the run.
        parsed = _parse(experiment, arguments, dataclasses.replace(default, config=stored))  # type: ignore[arg-type]
    return train(parsed.config, resume=parsed.resume, overwrite=parsed.overwrite)


def _parse(experiment: str, arguments: Sequence[str], default: Train) -> Train:
    parsed: Train = tyro.cli(
        type(default), prog=f"causalvae-fast train {experiment}", args=list(arguments), default=default
    )
    return dataclasses.replace(parsed, config=_absolute(parsed.config))  # type: ignore[arg-type]


def _absolute(config: TrainConfig) -> TrainConfig:
    """With the user's own files as absolute paths: later commands may run in another directory."""
    names = ("sprite", "backgrounds", "data")
    paths = {name: getattr(config, name, None) for name in names}
    return dataclasses.replace(
        config, **{name: path.resolve() for name, path in paths.items() if path is not None}
    )
