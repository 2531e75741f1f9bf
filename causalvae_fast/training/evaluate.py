"""The evaluation of a run, of whichever experiment: its metrics, and what they are computed on."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from causalvae_fast.data import SpriteVideos, make_ovals, make_sprites
from causalvae_fast.data.character import load_character
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.training.checkpoint import write_atomically
from causalvae_fast.training.config import SpritesConfig
from causalvae_fast.training.evaluation import evaluate_sprites, metrics_text
from causalvae_fast.training.ovals_config import OvalsConfig
from causalvae_fast.training.ovals_evaluation import evaluate_ovals, ovals_text
from causalvae_fast.training.own_runs import evaluate_own
from causalvae_fast.training.runs import Run
from causalvae_fast.training.sprite_positions import EXTRAPOLATED

Model = TypeVar("Model")
Config = TypeVar("Config")

_HELD_OUT_VIDEOS = 2000
_HELD_OUT_SEED = 1_000_000  # added to the run's seed: other videos than those of any training


def evaluate_run(run: Run) -> tuple[dict[str, Any], str]:
    """Metrics of a run, which are also written to its folder, and the same as a table for people.

    Raises:
        FileNotFoundError: if the user's own images, which the run was trained with, are gone.
        OSError: if the metrics cannot be written.
    """
    metrics: dict[str, Any] = {"step": run.step, "steps": run.steps}
    if run.experiment == "ovals":
        metrics |= evaluate_ovals(ovals_parts(run)[0], make_ovals())
        text = ovals_text(metrics)
    elif run.experiment in ("images", "video"):
        own, text = evaluate_own(run)
        metrics |= own
    else:
        model, config = sprites_parts(run)
        videos = held_out_sprites(config, config.model.frames - 1 + EXTRAPOLATED)
        metrics |= evaluate_sprites(model, videos, load_character(config.sprite))
        text = metrics_text(metrics, config.model.latents)
    write_atomically(run.folder.metrics, (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics, text


def sprites_parts(run: Run) -> tuple[VideoVAE, SpritesConfig]:
    """Model and configuration of a run of the sprite experiment.

    Raises:
        ValueError: if it is of another experiment.
    """
    return _parts(run, "sprites", VideoVAE, SpritesConfig)


def ovals_parts(run: Run) -> tuple[ImageVAE, OvalsConfig]:
    """Model and configuration of a run of the experiment with ovals.

    Raises:
        ValueError: if it is of another experiment.
    """
    return _parts(run, "ovals", ImageVAE, OvalsConfig)


def _parts(run: Run, experiment: str, model: type[Model], config: type[Config]) -> tuple[Model, Config]:
    if not (isinstance(run.model, model) and isinstance(run.config, config)):
        raise ValueError(f"the run in {run.folder.path} is not one of `causalvae-fast train {experiment}`")
    return run.model, run.config


def held_out_sprites(config: SpritesConfig, frames: int) -> SpriteVideos:
    """Videos of as many frames that no training has seen.

    Raises:
        FileNotFoundError: if the user's own images are gone.
    """
    try:
        return make_sprites(
            _HELD_OUT_VIDEOS,
            frames,
            seed=config.seed + _HELD_OUT_SEED,
            sprite=config.sprite,
            backgrounds=config.backgrounds,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. The run was trained with it: put it back, or change the path in its config.yaml"
        ) from error
