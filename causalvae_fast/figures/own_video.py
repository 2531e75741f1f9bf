"""The figures of a model of the user's own videos."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from causalvae_fast.data import UserVideos
from causalvae_fast.data.user_videos import Segment, as_float
from causalvae_fast.figures.architecture import draw_architecture
from causalvae_fast.figures.extrapolation import draw_extrapolation
from causalvae_fast.figures.graph import draw_graph
from causalvae_fast.figures.image_grid import draw_image_grid
from causalvae_fast.figures.latent_tracks import draw_latent_tracks
from causalvae_fast.models.video_vae import VideoVAE

_STEPS = 6  # frames to extrapolate, if the videos are long enough
_SAMPLES = 4
_LONGEST_TRACK = 100  # frames
_WINDOWS = 200  # whose latents say how far one is moved
_VALUES = 7  # that a latent is set to
_REACH = 2.0  # standard deviations of the latent, over the held-out frames


class Continuation(NamedTuple):
    """Held-out videos and their continuation by the model, (n, T, H, W, C) in [0, 1]."""

    truth: Tensor
    predicted: Tensor
    videos: list[int]  # their numbers


@torch.no_grad()
def draw_video_figures(model: VideoVAE, videos: UserVideos, folder: Path) -> list[Path]:
    """Graph, latents over time, interventions on each latent, extrapolations, and the architecture; returns
    the files."""
    frames, k = model.config.frames, model.config.latents
    steps = min(_STEPS, longest_extrapolation(model, videos))
    continued = continue_held_out(model, videos, steps, _SAMPLES)
    return [
        draw_graph(model.prior.to_networkx(), frames, k, folder / "graph.png"),
        _draw_tracks(model, videos, folder / "latents.png"),
        _draw_interventions(model, videos, folder / "interventions.png"),
        draw_extrapolation(continued.truth, continued.predicted, frames - 1, folder / "extrapolation.png"),
        draw_architecture(model, folder / "architecture.png"),
    ]


def longest_extrapolation(model: VideoVAE, videos: UserVideos) -> int:
    """Frames that can be predicted in the longest held-out video, with the true ones beside them."""
    return max(segment.length for segment in videos.held_out) - (model.config.frames - 1)


@torch.no_grad()
def continue_held_out(model: VideoVAE, videos: UserVideos, steps: int, samples: int) -> Continuation:
    """Of held-out videos that are long enough, the first frames - 1 frames as reconstructed, and `steps` more as
    extrapolated from them, beside the true ones. They start where the video does.

    Raises:
        ValueError: if no held-out video is long enough.
    """
    past = model.config.frames - 1
    segments = [segment for segment in videos.held_out if segment.length >= past + steps][:samples]
    if not segments:
        raise ValueError(
            f"steps must be at most {longest_extrapolation(model, videos)}, as the longest of the held-out videos "
            f"allows, got {steps}; causalvae_fast.load(run).extrapolate(frames, steps) goes on without true frames"
        )
    clips = torch.stack([videos.clip(segment, 0, past + steps) for segment in segments])
    behind = _backgrounds(videos, segments)
    seen = model.decode(model.encode(clips[:, :past]).mean, behind)
    later = model.extrapolate(clips[:, :past], steps, background=behind)
    return Continuation(as_float(clips), torch.cat([seen, later], 1), [s.video for s in segments])


def _draw_tracks(model: VideoVAE, videos: UserVideos, path: Path) -> Path:
    """Of the longest held-out video."""
    past, k = model.config.frames - 1, model.config.latents
    segment = max(videos.held_out, key=lambda s: s.length)
    q = model.encode(videos.clip(segment, 0, min(segment.length, _LONGEST_TRACK)))
    windows = q.mean.unfold(0, past, 1)[:-1].movedim(-1, 1).flatten(1)  # (T - past, past * k)
    predicted = model.prior.extrapolate(windows, 1, latents=k)
    none = predicted.new_full((past, k), float("nan"))
    return draw_latent_tracks(q.mean, q.stddev, torch.cat([none, predicted]), path)


def _draw_interventions(model: VideoVAE, videos: UserVideos, path: Path) -> Path:
    """Each latent of the last frame but one is set to values: that frame, and the one that follows from it."""
    frames, k = model.config.frames, model.config.latents
    segment = videos.held_out[0]
    window = videos.clip(segment, 0, frames).expand(_VALUES, -1, -1, -1, -1)
    behind = _backgrounds(videos, _VALUES * [segment])
    means = model.encode(videos.held_out_windows(_WINDOWS)[0].flatten(0, 1)).mean
    steps = torch.linspace(-_REACH, _REACH, _VALUES)
    values = means.mean(0) + steps[:, None] * means.std(0, correction=0)
    rows, labels = [], []
    for latent in range(k):
        node = (frames - 2) * k + latent
        decoded = model.intervene(window, {node: values[:, latent]}, background=behind)
        for t in (frames - 2, frames - 1):
            rows.append(decoded[:, t])
            labels.append(f"$z_{{{frames - 1},{latent + 1}}}$ set, $t = {t + 1}$")
    return draw_image_grid(
        torch.stack(rows),
        labels,
        [f"{step:+.1f} sd" if abs(step) > 1e-6 else "mean" for step in steps.tolist()],
        path,
        caption="do(z = its mean over all frames, plus so many standard deviations); all else as in the video",
        group=2,
    )


def _backgrounds(videos: UserVideos, segments: list[Segment]) -> Tensor | None:
    return None if videos.backgrounds is None else videos.backgrounds[[segment.video for segment in segments]]
