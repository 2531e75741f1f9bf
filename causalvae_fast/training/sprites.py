"""The sprite experiment as the training loop sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.data import make_sprites
from causalvae_fast.models.video_vae import VideoTerms, VideoVAE
from causalvae_fast.training.config import SpritesConfig
from causalvae_fast.training.graph_experiment import GraphExperiment


class SpritesExperiment(GraphExperiment):
    """Videos of a character that moves linearly."""

    name = "sprites"
    config: SpritesConfig

    def __init__(self, config: SpritesConfig) -> None:
        self.config = config
        self.videos = make_sprites(
            config.samples,
            config.model.frames,
            seed=config.seed,
            sprite=config.sprite,
            backgrounds=config.backgrounds,
        )

    def make_model(self) -> None:
        self.model: VideoVAE = VideoVAE(self.config.model)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        return self.videos.frames[index].to(device), self.videos.background[index].to(device)

    def loss(self, terms: VideoTerms, progress: float) -> Tensor:
        config = self.config
        edge_weight = config.edge_weight if progress >= config.edge_start else 0.0
        return (
            config.reconstruction_weight * terms.reconstruction
            + config.prediction_weight * terms.prediction
            + config.kl_weight * terms.kl
            + edge_weight * terms.edges
        )

    def introduction(self) -> str:
        config = self.config
        return (
            f"sprites: {config.samples} videos, seed {config.seed}\n"
            f"loss = {config.reconstruction_weight:g} reconstruction + {config.prediction_weight:g} prediction "
            f"+ {config.kl_weight:g} kl + {config.edge_weight:g} edges (from {config.edge_start:.0%} of the steps)"
        )
