"""The training on the user's own images as the training loop sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.data import UserImages
from causalvae_fast.models.image_vae import LEARNED_PRIORS, ImageTerms, ImageVAE
from causalvae_fast.training.experiment import warm_up
from causalvae_fast.training.graph_experiment import GraphExperiment
from causalvae_fast.training.images_config import ImagesConfig
from causalvae_fast.training.own_data import (
    describe,
    filled_in,
    is_convolutional,
    path_of,
    require_same_data,
    shape_entries,
)


class ImagesExperiment(GraphExperiment):
    """Images that nothing is known of."""

    name = "images"
    config: ImagesConfig

    def __init__(self, config: ImagesConfig) -> None:
        self.images = open_images(config)
        shape = self.images.shape
        entries = shape_entries(shape, "channels") | {"convolutional": is_convolutional(config.networks, shape)}
        self.config = filled_in(config, path_of(config), len(self.images.train), entries, self.images.survey)
        self.weight = config.nats / self.images.survey.variance

    def make_model(self) -> None:
        self.model: ImageVAE = ImageVAE(self.config.model)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        return (self.images.images(self.images.train[index]).to(device),)

    def loss(self, terms: ImageTerms, progress: float) -> Tensor:
        config = self.config
        warm = warm_up(progress, config.warm_up)
        loss = self.weight * terms.reconstruction + warm * config.beta * terms.kl
        if terms.edges is None or progress < config.edge_start:
            return loss
        return loss + config.edge_weight * terms.edges

    def introduction(self) -> str:
        config = self.config
        edges = (
            f" + {config.edge_weight:g} edges (from {config.edge_start:.0%} of the steps)"
            if config.model.prior in LEARNED_PRIORS
            else ""
        )
        lines = [
            f"images: {config.samples} of {config.data}, {len(self.images.held_out)} held out",
            f"{describe(self.images.shape, config.model.convolutional)}, {config.model.prior} prior, "
            f"seed {config.seed}",
            f"loss = {self.weight:.3g} reconstruction + {config.beta:g} kl{edges}",
            self.images.survey.note,
        ]
        return "\n".join(line for line in lines if line)


def open_images(config: ImagesConfig) -> UserImages:
    """The images that a configuration names, as it splits them.

    Raises:
        ConfigError: if none are named, or others than those that its run was started with.
        FileNotFoundError: if they are gone.
        DataError: if they cannot be used.
    """
    path = path_of(config)
    images = UserImages(path, held_out=config.held_out, seed=config.seed)
    require_same_data(config, path, images.survey)
    return images
