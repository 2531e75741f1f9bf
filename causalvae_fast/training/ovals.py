"""The experiment with ovals as the training loop sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from causalvae_fast.data import make_ovals
from causalvae_fast.models.image_vae import ImageTerms, ImageVAE
from causalvae_fast.training.experiment import Experiment, warm_up
from causalvae_fast.training.first_component import FirstComponent
from causalvae_fast.training.ovals_config import OvalsConfig

_WARM_UP_STEPS = 100
_DECAY = 0.2  # fraction of the training over which Adam's learning rate falls to zero


class OvalsExperiment(Experiment):
    """Ovals on a parabola; the causal prior's latents are opened in causal order."""

    name = "ovals"

    def __init__(self, config: OvalsConfig) -> None:
        self.config = config
        self.ovals = make_ovals()
        shuffled = torch.randperm(len(self.ovals), generator=torch.Generator().manual_seed(config.seed))
        self.chosen = shuffled[: config.samples]
        self.in_order = config.opens_in_order
        if self.in_order:
            self.component = FirstComponent(self.ovals.images(self.chosen[:2000]))

    def make_model(self) -> None:
        self.model: ImageVAE = ImageVAE(self.config.model)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        return (self.ovals.images(self.chosen[index]).to(device),)

    def optimizer(self) -> torch.optim.Optimizer:
        groups = [{"name": "networks", "params": list(self.model.parameters())}]
        if self.config.optimizer == "adagrad":
            return torch.optim.Adagrad(groups, lr=self.config.learning_rate)
        return torch.optim.Adam(groups, lr=self.config.learning_rate)

    def rate(self, group: str, step: int, steps: int) -> float:
        """A short rise, a plateau, a linear fall for Adam; constant for Adagrad, which has its own."""
        if self.config.optimizer == "adagrad":
            return 1.0
        return min(1.0, (step + 1) / _WARM_UP_STEPS, max(0.02, (1 - step / steps) / _DECAY))

    def opened(self, progress: float) -> Tensor | None:
        """(d,), how far each latent is open: z1 always, then its child, then the rest; None when all are."""
        config = self.config
        if not self.in_order or progress >= config.rest_start + config.opening:
            return None
        starts = torch.full((config.model.latents,), config.rest_start)
        starts[0], starts[1] = -1.0, config.child_start
        return ((progress - starts) / config.opening).clamp(0, 1)

    def terms(self, model: Any, batch: tuple[Tensor, ...], progress: float) -> ImageTerms:
        (images,) = batch
        opened = self.opened(progress)
        guided = self.in_order and progress < self.config.guide_end
        terms: ImageTerms = model(
            images,
            None if opened is None else opened.to(images.device),
            self.component(images) if guided else None,
        )
        return terms

    def loss(self, terms: ImageTerms, progress: float) -> Tensor:
        config = self.config
        warm = warm_up(progress, config.warm_up)
        loss = config.reconstruction_weight * terms.reconstruction + warm * config.beta * terms.kl
        if terms.guide is None:
            return loss
        return loss + config.guide_weight * (1 - progress / config.guide_end) * terms.guide

    def introduction(self) -> str:
        config = self.config
        order = (
            f"z1 follows the first component of blurred images until {config.guide_end:.0%}, its child opens at "
            f"{config.child_start:.0%}, the rest at {config.rest_start:.0%} of the steps"
            if self.in_order
            else "all latents are open from the start"
        )
        return (
            f"ovals: {config.samples} images, {config.model.prior} prior, {config.optimizer}, seed {config.seed}\n"
            f"loss = {config.reconstruction_weight:g} reconstruction + {config.beta:g} kl; {order}"
        )
