"""The folder of a training run: what is in it, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig
from causalvae_fast.training.checkpoint import CheckpointError, load_checkpoint, without_prefix, write_atomically
from causalvae_fast.training.config import (
    EXPERIMENTS,
    ConfigError,
    TrainConfig,
    experiment_name,
    from_yaml,
    to_yaml,
)
from causalvae_fast.training.config_fields import differing

Config = TypeVar("Config", bound=TrainConfig)


class RunFolderError(RuntimeError):
    """A run folder cannot be used as asked; the message names it and the remedy."""


class RunFolder:
    """Where the parts of a run are."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.metrics = self.path / "metrics.json"
        self.tensorboard = self.path / "tensorboard"
        self.figures = self.path / "figures"
        self.extrapolation = self.path / "extrapolation.npz"
        self.log = self.path / "train.log"  # of a run of a sweep: what it said
        self.error = self.path / "error.txt"  # and what it failed with

    def create(self, config: TrainConfig, overwrite: bool) -> None:
        """Make the folder for a new run.

        Raises:
            RunFolderError: if it holds a run and `overwrite` is false.
        """
        if self.config.exists() or self.checkpoint.exists():
            if not overwrite:
                raise RunFolderError(
                    f"{self.path} holds a run already: continue it with --resume, replace it with --overwrite, "
                    "or give another folder with --out"
                )
            results = (self.metrics, self.extrapolation, self.error, *self.figures.glob("*.png"))
            for path in (self.checkpoint, *results, *self.tensorboard.glob("events.*")):
                path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def write_config(self, config: TrainConfig) -> None:
        """Put a configuration in the place of the one that is there, if any."""
        write_atomically(self.config, to_yaml(config).encode())

    def read_config(self) -> TrainConfig:
        """The configuration of the run.

        Raises:
            RunFolderError: if there is no such run.
            ConfigError: if the file cannot be used.
        """
        if not self.config.is_file():
            raise RunFolderError(f"there is no run in {self.path}: give the folder of a `causalvae-fast train`")
        return from_yaml(self.config)

    def read_config_of(self, kind: type[Config]) -> Config:
        """The configuration of the run, which must be one of an experiment.

        Raises:
            RunFolderError: if there is no such run.
            ConfigError: if the file cannot be used, or is of another experiment.
        """
        config = self.read_config()
        if not isinstance(config, kind):
            wanted = next(name for name, known in EXPERIMENTS.items() if known is kind)
            raise ConfigError(f"the run in {self.path} is of another experiment than {wanted}")
        return config

    def require_config(self, config: TrainConfig) -> None:
        """Require that the run in the folder can go on with a configuration: that it is its own, but for
        `config_fields.MAY_DIFFER`.

        Raises:
            RunFolderError: if there is no such run.
            ConfigError: if it is not; the message names the entries.
        """
        entries = differing(config, self.read_config_of(type(config)))
        if entries:
            raise ConfigError(
                f"the run in {self.path} goes on as it was configured, but asked for is {', '.join(entries)}: "
                "leave that out, or start a new run in another folder"
            )


class Run(NamedTuple):
    """A run as it was last saved."""

    folder: RunFolder
    config: TrainConfig
    model: VideoVAE | ImageVAE  # on the CPU, in evaluation mode
    step: int  # that the training has come to
    steps: int  # that it takes in all

    @property
    def experiment(self) -> str:
        """Its name, as `causalvae-fast train` takes it."""
        return experiment_name(self.config)


def load_run(path: Path | str) -> Run:
    """A run as it was last saved.

    Raises:
        RunFolderError: if there is no run in the folder.
        ConfigError: if its configuration cannot be used.
        CheckpointError: if its checkpoint is missing, truncated, foreign, or of another model.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    settings = config.model
    model = VideoVAE(settings) if isinstance(settings, VideoVAEConfig) else ImageVAE(settings)
    tensors, metadata = load_checkpoint(folder.checkpoint)
    load_weights(model, without_prefix("model", tensors), folder.checkpoint)
    return Run(folder, config, model.eval(), metadata["step"], metadata["steps"])


def load_weights(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put the weights of the checkpoint at `path` into the model.

    Raises:
        CheckpointError: if they are not those of such a model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds another model than the configuration beside it describes ({error}): "
            "restore the two files together, or train again"
        ) from error
