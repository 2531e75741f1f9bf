"""`causalvae-fast train sprites`: the configuration as command-line options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.runs import RunFolder
from causalvae_fast.training.trainer import train

_MAY_DIFFER = ("run", "device")


@dataclass(frozen=True)
class TrainSprites:
    """Train the sprite experiment: a character that moves linearly over a background."""

    config: tyro.conf.OmitArgPrefixes[SpritesConfig] = field(default_factory=SpritesConfig)
    resume: bool = False
    """Continue the run in the folder, with its own configuration."""
    overwrite: bool = False
    """Replace the run in the folder."""


def train_command(arguments: Sequence[str]) -> bool:
    """Train as the options say; True when complete, False when interrupted.

    Raises:
        ConfigError: if an option cannot be, or differs from the run that is resumed.
    """
    parsed = _parse(arguments, TrainSprites())
    if parsed.resume and parsed.overwrite:
        raise ConfigError("--resume continues the run in the folder, --overwrite replaces it: give one of them")
    if parsed.resume:
        stored = RunFolder(parsed.config.run).read_config()
        # What is not on the command line comes from the run.
        parsed = _parse(arguments, TrainSprites(config=stored))
        differing = [
            f"{name} = {getattr(parsed.config, name)} (the run has {getattr(stored, name)})"
            for name in (entry.name for entry in dataclasses.fields(SpritesConfig))
            if name not in _MAY_DIFFER and getattr(parsed.config, name) != getattr(stored, name)
        ]
        if differing:
            raise ConfigError(
                f"--resume continues a run as it was configured, but the options say {', '.join(differing)}: "
                "leave them out, or start a new run"
            )
    return train(parsed.config, resume=parsed.resume, overwrite=parsed.overwrite)


def _parse(arguments: Sequence[str], default: TrainSprites) -> TrainSprites:
    parsed: TrainSprites = tyro.cli(
        TrainSprites, prog="causalvae-fast train sprites", args=list(arguments), default=default
    )
    config = parsed.config
    # Later commands may run in another directory.
    config = dataclasses.replace(
        config,
        sprite=None if config.sprite is None else config.sprite.resolve(),
        backgrounds=None if config.backgrounds is None else config.backgrounds.resolve(),
    )
    return dataclasses.replace(parsed, config=config)
