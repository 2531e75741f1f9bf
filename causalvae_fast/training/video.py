"""The training on the user's own videos as the training loop sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.data import UserVideos
from causalvae_fast.models.video_vae import VideoTerms, VideoVAE
from causalvae_fast.training.graph_experiment import GraphExperiment
from causalvae_fast.training.own_data import (
    describe,
    filled_in,
    is_convolutional,
    path_of,
    require_same_data,
    shape_entries,
)
from causalvae_fast.training.video_config import VideoConfig


class VideoExperiment(GraphExperiment):
    """Windows of videos that nothing is known of."""

    name = "video"
    config: VideoConfig

    def __init__(self, config: VideoConfig) -> None:
        self.videos = open_videos(config)
        shape = self.videos.shape
        entries = shape_entries(shape, "colours") | {
            "convolutional": is_convolutional(config.networks, shape),
            "background": config.background_from == "median",
        }
        self.config = filled_in(config, path_of(config), len(self.videos), entries, self.videos.survey)
        self.weight = config.nats / (self.videos.variance * config.model.frames)

    def make_model(self) -> None:
        self.model: VideoVAE = VideoVAE(self.config.model)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        windows, background = self.videos.windows(index).to(device), self.videos.backgrounds_of(index)
        return (windows,) if background is None else (windows, background.to(device))

    def loss(self, terms: VideoTerms, progress: float) -> Tensor:
        config = self.config
        edge_weight = config.edge_weight if progress >= config.edge_start else 0.0
        return (
            self.weight * terms.reconstruction
            + config.prediction * self.weight * terms.prediction
            + config.kl_weight * terms.kl
            + edge_weight * terms.edges
        )

    def introduction(self) -> str:
        config, videos = self.config, self.videos
        alone = videos.segments[0].video == videos.held_out[0].video
        held_out = (
            "its end" if alone else f"{len(videos.held_out)} of {len(videos.held_out) + len(videos.segments)}"
        )
        lines = [
            f"video: {config.samples} windows of {config.model.frames} frames of {config.data}",
            f"{held_out} held out, {describe(videos.shape, config.model.convolutional)}, {config.model.mechanism} "
            f"mechanism, background {config.background_from}, seed {config.seed}",
            f"loss = {self.weight:.3g} reconstruction + {config.prediction * self.weight:.3g} prediction "
            f"+ {config.kl_weight:g} kl + {config.edge_weight:g} edges "
            f"(from {config.edge_start:.0%} of the steps)",
            videos.survey.note,
        ]
        return "\n".join(line for line in lines if line)


def open_videos(config: VideoConfig) -> UserVideos:
    """The videos that a configuration names, as it splits them.

    Raises:
        ConfigError: if none are named, or others than those that its run was started with.
        FileNotFoundError: if they are gone.
        DataError: if they cannot be used.
    """
    path = path_of(config)
    videos = UserVideos(
        path,
        config.model.frames,
        held_out=config.held_out,
        seed=config.seed,
        background=config.background_from == "median",
    )
    require_same_data(config, path, videos.survey)
    return videos
