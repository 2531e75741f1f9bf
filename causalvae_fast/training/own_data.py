"""What trainings on the user's own images and videos have in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from causalvae_fast.data.survey import Survey
from causalvae_fast.training.config_errors import ConfigError, check_device, check_fraction, check_numbers

Config = TypeVar("Config")

NETWORKS = ("auto", "convolutional", "perceptron")
_LARGEST_FOR_PERCEPTRONS = 32  # pixels a side
_DEFAULT_STEPS = 3000


def check_own(config: Any) -> None:
    """Require entries that both kinds of trainings have, in range."""
    check_numbers(config, ("batch_size",), at_least=1)
    check_numbers(config, ("epochs",), at_least=0)
    rates = ("learning_rate", "mechanism_learning_rate", "edge_learning_rate")
    check_numbers(config, (*rates, "nats", "edge_logit_bound"), above=0)
    check_numbers(config, ("edge_weight",), at_least=0)
    check_numbers(config, ("edge_start", "noise_start"), at_least=0, at_most=1)
    check_fraction(config, "held_out")
    check_numbers(config, ("seed",), at_least=0, at_most=2**31 - 1)
    check_device(config.device)
    if config.networks not in NETWORKS:
        raise ConfigError(f"networks must be {', '.join(NETWORKS)}, got {config.networks!r}")


def path_of(config: Any) -> Path:
    """The absolute path of the data; later commands may run in another folder.

    Raises:
        ConfigError: if none was given.
        FileNotFoundError: if there is nothing.
    """
    if config.data is None:
        raise ConfigError("data must be given: --data takes a .npy file or a folder of images")
    path = Path(config.data).resolve()
    if config.fingerprint and not path.exists():
        raise FileNotFoundError(
            f"there are no data at {path}, which the run in {config.run} is trained on: put them back, say where "
            "they are with --resume --data, or change data in its config.yaml"
        )
    return path


def is_convolutional(networks: str, shape: tuple[int, int, int]) -> bool:
    """Whether frames (H, W, C) get convolutional networks."""
    return networks == "convolutional" or (networks == "auto" and max(shape[:2]) > _LARGEST_FOR_PERCEPTRONS)


def require_same_data(config: Any, path: Path, found: Survey) -> None:
    """Require that data are those that the run was started with, if it was.

    Raises:
        ConfigError: if they are others.
    """
    if config.fingerprint and config.fingerprint != found.fingerprint:
        raise ConfigError(
            f"{path} holds other data than those that the run in {config.run} was started with: put these back, "
            "or start a new run"
        )


def filled_in(config: Config, path: Path, samples: int, shape: dict[str, Any], found: Survey) -> Config:
    """The configuration with what only the data say: `samples` to train on, and entries of the model."""
    old: Any = config
    epochs = old.epochs or max(1, round(_DEFAULT_STEPS * old.batch_size / samples))
    values = {"data": path, "samples": samples, "epochs": epochs, "fingerprint": found.fingerprint}
    new: Config = dataclasses.replace(old, **values, model=dataclasses.replace(old.model, **shape))
    return new


def shape_entries(shape: tuple[int, int, int], colours: str) -> dict[str, Any]:
    """Entries of a model's configuration for frames (H, W, C); `colours` is the name of that of C."""
    height, width, count = shape
    return {"size": height, "width": None if width == height else width, colours: count}


def describe(shape: tuple[int, int, int], convolutional: bool) -> str:
    """Frames (H, W, C), and the networks for them."""
    height, width, colours = shape
    kind = "convolutional networks" if convolutional else "small networks"
    return f"{width} x {height} pixels, {'grey' if colours == 1 else 'RGB'}, {kind}"
