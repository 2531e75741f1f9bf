"""The sprite experiment as the training loop sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from causalvae_fast.data import make_sprites
from causalvae_fast.models.video_vae import VideoTerms, VideoVAE
from causalvae_fast.training.config import SpritesConfig
from causalvae_fast.training.experiment import Experiment

_WARM_UP_STEPS = 100
_DECAY = 0.4  # fraction of the training over which the learning rates fall to zero


class SpritesExperiment(Experiment):
    """Videos of a character that moves linearly."""

    name = "sprites"

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

    def optimizer(self) -> torch.optim.Optimizer:
        config, prior = self.config, self.model.prior
        assert prior.edges is not None
        noise = [prior.log_sigma] if isinstance(prior.log_sigma, nn.Parameter) else []
        groups = {
            "edges": (list(prior.edges.parameters()), config.edge_learning_rate),
            "mechanism": (list(prior.mechanism.parameters()), config.mechanism_learning_rate),
            "noise": (noise, config.mechanism_learning_rate),
        }
        special = {id(p) for parameters, _ in groups.values() for p in parameters}
        groups["networks"] = ([p for p in self.model.parameters() if id(p) not in special], config.learning_rate)
        return torch.optim.Adam(
            [{"name": name, "params": params, "lr": rate} for name, (params, rate) in groups.items() if params],
            betas=(0.9, 0.99),
        )

    def rate(self, group: str, step: int, steps: int) -> float:
        """A short rise, a plateau, a linear fall; the noise of the SEM waits."""
        if group == "noise" and step < self.config.noise_start * steps:
            return 0.0
        return min(1.0, (step + 1) / _WARM_UP_STEPS, max(0.02, (1 - step / steps) / _DECAY))

    def terms(self, model: Any, batch: tuple[Tensor, ...], progress: float) -> VideoTerms:
        terms: VideoTerms = model(*batch)
        return terms

    def loss(self, terms: VideoTerms, progress: float) -> Tensor:
        config = self.config
        edge_weight = config.edge_weight if progress >= config.edge_start else 0.0
        return (
            config.reconstruction_weight * terms.reconstruction
            + config.prediction_weight * terms.prediction
            + config.kl_weight * terms.kl
            + edge_weight * terms.edges
        )

    @torch.no_grad()
    def after_step(self) -> None:
        assert self.model.prior.edges is not None
        bound = self.config.edge_logit_bound
        self.model.prior.edges.logits.clamp_(-bound, bound)

    def introduction(self) -> str:
        config = self.config
        return (
            f"sprites: {config.samples} videos, seed {config.seed}\n"
            f"loss = {config.reconstruction_weight:g} reconstruction + {config.prediction_weight:g} prediction "
            f"+ {config.kl_weight:g} kl + {config.edge_weight:g} edges (from {config.edge_start:.0%} of the steps)"
        )
