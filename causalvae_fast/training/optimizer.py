"""The optimizer of models whose graph is learned, and its schedule."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from causalvae_fast.models.base import CausalVAE

_WARM_UP_STEPS = 100
_DECAY = 0.4  # fraction of the training over which the learning rates fall to zero


class Rates(Protocol):
    """The learning rates of a configuration."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def mechanism_learning_rate(self) -> float: ...
    @property
    def edge_learning_rate(self) -> float: ...
    @property
    def noise_start(self) -> float: ...


def graph_optimizer(model: CausalVAE, rates: Rates) -> torch.optim.Optimizer:
    """Adam with the groups edges, mechanism, noise and networks, as far as the model has them."""
    prior = model.prior
    noise = [prior.log_sigma] if isinstance(prior.log_sigma, nn.Parameter) else []
    edges = [] if prior.edges is None else list(prior.edges.parameters())
    groups = {
        "edges": (edges, rates.edge_learning_rate),
        "mechanism": (list(prior.mechanism.parameters()), rates.mechanism_learning_rate),
        "noise": (noise, rates.mechanism_learning_rate),
    }
    special = {id(p) for parameters, _ in groups.values() for p in parameters}
    groups["networks"] = ([p for p in model.parameters() if id(p) not in special], rates.learning_rate)
    return torch.optim.Adam(
        [{"name": name, "params": params, "lr": rate} for name, (params, rate) in groups.items() if params],
        betas=(0.9, 0.99),
    )


def graph_rate(rates: Rates, group: str, step: int, steps: int) -> float:
    """Factor on the learning rate of a group: a short rise, a plateau, a linear fall; the noise of the SEM
    waits."""
    if group == "noise" and step < rates.noise_start * steps:
        return 0.0
    return min(1.0, (step + 1) / _WARM_UP_STEPS, max(0.02, (1 - step / steps) / _DECAY))


@torch.no_grad()
def keep_logits_bounded(model: CausalVAE, bound: float) -> None:
    """Clamp the edges' logits to [-bound, bound], if there are any."""
    if model.prior.edges is not None:
        model.prior.edges.logits.clamp_(-bound, bound)
