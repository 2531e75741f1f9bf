"""What experiments whose graph is learned have in common: an optimizer, its schedule, and bounds on the edges."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from causalvae_fast.training.experiment import Experiment, Terms

_WARM_UP_STEPS = 100
_DECAY = 0.4  # fraction of the training over which the learning rates fall to zero


class GraphConfig(Protocol):
    """What it takes of a configuration."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def mechanism_learning_rate(self) -> float: ...
    @property
    def edge_learning_rate(self) -> float: ...
    @property
    def edge_logit_bound(self) -> float: ...
    @property
    def noise_start(self) -> float: ...


class GraphExperiment(Experiment):
    """Adam with the groups edges, mechanism, noise and networks, as far as the model has them."""

    config: GraphConfig

    def optimizer(self) -> torch.optim.Optimizer:
        config, prior = self.config, self.model.prior
        noise = [prior.log_sigma] if isinstance(prior.log_sigma, nn.Parameter) else []
        edges = [] if prior.edges is None else list(prior.edges.parameters())
        groups = {
            "edges": (edges, config.edge_learning_rate),
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

    def terms(self, model: Any, batch: tuple[torch.Tensor, ...], progress: float) -> Terms:
        terms: Terms = model(*batch)
        return terms

    @torch.no_grad()
    def after_step(self) -> None:
        edges, bound = self.model.prior.edges, self.config.edge_logit_bound
        if edges is not None:
            edges.logits.clamp_(-bound, bound)
