"""The figures of a trained sprite model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from causalvae_fast.data import SpriteVideos
from causalvae_fast.data.character_position import videos_in_view
from causalvae_fast.figures.architecture import draw_architecture
from causalvae_fast.figures.extrapolation import draw_extrapolation
from causalvae_fast.figures.graph import draw_graph
from causalvae_fast.figures.latent_response import draw_latent_response
from causalvae_fast.figures.sprite_interventions import draw_sprite_interventions
from causalvae_fast.models.video_vae import VideoVAE


def draw_sprite_figures(model: VideoVAE, videos: SpriteVideos, folder: Path) -> list[Path]:
    """The learned graph, the response of each latent to position, interventions on each, extrapolations, and the
    architecture; returns the files.

    The response is drawn for positions as in training, in the first frames of each video.

    Args:
        model: a trained one.
        videos: (N, T) that it was not trained on, with T > frames - 1.
        folder: where the files go.
    """
    frames, latents = model.config.frames, model.config.latents
    with torch.no_grad():
        z = model.encode(videos.frames[:, :frames].flatten(0, 1)).mean
    return [
        draw_graph(model.prior.to_networkx(), frames, latents, folder / "graph.png"),
        draw_latent_response(videos.positions[:, :frames].flatten(0, 1), z, folder / "latent_response.png"),
        draw_sprite_interventions(model, videos, folder / "interventions.png"),
        draw_sprite_extrapolation(model, videos, folder / "extrapolation.png"),
        draw_architecture(model, folder / "architecture.png"),
    ]


def draw_sprite_extrapolation(model: VideoVAE, videos: SpriteVideos, path: Path, samples: int = 6) -> Path:
    """True videos above their continuation by the model, which has seen the first frames - 1 frames.

    Shown are the first `samples` videos in which the character stays in view; in the others, the last frames are
    often an empty background.
    """
    chosen = videos_in_view(videos.positions)[:samples]
    truth = videos.frames[chosen].float() / 255
    return draw_extrapolation(truth, continue_videos(model, videos, chosen), model.config.frames - 1, path)


@torch.no_grad()
def continue_videos(model: VideoVAE, videos: SpriteVideos, chosen: Tensor) -> Tensor:
    """(n, T, H, W, 3): the reconstruction of the first frames - 1 frames, and the extrapolation of all others."""
    past = model.config.frames - 1
    observed, background = videos.frames[chosen, :past], videos.background[chosen]
    seen = model.decode(model.encode(observed).mean, background)
    return torch.cat(
        [seen, model.extrapolate(observed, videos.frames.shape[1] - past, background=background)], dim=1
    )
