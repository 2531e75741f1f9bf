"""The figures of runs on the user's own images and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from causalvae_fast.figures.extrapolation import draw_extrapolation
from causalvae_fast.figures.own_images import draw_image_figures
from causalvae_fast.figures.own_video import continue_held_out, draw_video_figures
from causalvae_fast.training.own_runs import images_of, videos_of
from causalvae_fast.training.runs import Run


def draw_own_figures(run: Run) -> list[Path]:
    """All figures of a run of `train images` or `train video`, into its folder; returns the files.

    Raises:
        ConfigError, FileNotFoundError, DataError: if the data are gone or others.
    """
    if run.experiment == "images":
        return draw_image_figures(*images_of(run), run.folder.figures)
    return draw_video_figures(*videos_of(run), run.folder.figures)


def extrapolate_own(run: Run, steps: int, samples: int) -> list[Path]:
    """Held-out videos of a run of `train video`, continued: a figure, and an .npz with the arrays `truth` and
    `predicted` (n, T, H, W, C) and the numbers of the `videos`; returns the files.

    Raises:
        ValueError: if no held-out video is long enough.
        ConfigError, FileNotFoundError, DataError: if the data are gone or others.
    """
    model, videos = videos_of(run)
    truth, predicted, numbers = continue_held_out(model, videos, steps, samples)
    picture = run.folder.figures / f"extrapolation_{steps}.png"
    draw_extrapolation(truth, predicted, model.config.frames - 1, picture)
    np.savez_compressed(run.folder.extrapolation, truth=truth, predicted=predicted, videos=np.array(numbers))
    return [picture, run.folder.extrapolation]
