"""Runs on the user's own images and videos, with their data."""

from __future__ import annotations

from typing import Any

from causalvae_fast.data import UserImages, UserVideos
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.training.images import open_images
from causalvae_fast.training.images_config import ImagesConfig
from causalvae_fast.training.own_evaluation import evaluate_images, evaluate_video, own_text
from causalvae_fast.training.runs import Run
from causalvae_fast.training.video import open_videos
from causalvae_fast.training.video_config import VideoConfig


def images_of(run: Run) -> tuple[ImageVAE, UserImages]:
    """Model and images of a run of `train images`.

    Raises:
        ConfigError, FileNotFoundError, DataError: if the images are gone or others.
    """
    assert isinstance(run.model, ImageVAE)
    assert isinstance(run.config, ImagesConfig)
    return run.model, open_images(run.config)


def videos_of(run: Run) -> tuple[VideoVAE, UserVideos]:
    """Model and videos of a run of `train video`.

    Raises:
        ConfigError, FileNotFoundError, DataError: if the videos are gone or others.
    """
    assert isinstance(run.model, VideoVAE)
    assert isinstance(run.config, VideoConfig)
    return run.model, open_videos(run.config)


def evaluate_own(run: Run) -> tuple[dict[str, Any], str]:
    """Metrics of a run of `train images` or `train video`, and the same as a table for people.

    Raises:
        ConfigError, FileNotFoundError, DataError: if the data are gone or others.
    """
    latents = run.model.config.latents
    if run.experiment == "images":
        metrics = evaluate_images(*images_of(run))
        return metrics, own_text(metrics, latents)
    model, videos = videos_of(run)
    metrics = evaluate_video(model, videos)
    return metrics, own_text(metrics, latents, model.config.frames)
