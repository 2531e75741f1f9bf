"""What the training loop asks of an experiment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from causalvae_fast.models.base import CausalVAE


class Terms(Protocol):
    """The terms of a loss, scalars."""

    def named(self) -> dict[str, Tensor]: ...


def warm_up(progress: float, duration: float) -> float:
    """A factor that rises from near 0 to 1 over the first `duration` of the training; 1 if that is 0."""
    return min(1.0, 0.02 + progress / duration) if duration > 0 else 1.0


class Experiment(ABC):
    """Data, a model, and the loss that joins them. What changes in the course of a training is told its progress,
    the fraction of the steps that are done.
    """

    name: str
    config: Any  # that of the experiment, with what the data say filled in
    model: CausalVAE

    @abstractmethod
    def make_model(self) -> None:
        """Set `model`, with weights drawn from the current random state."""

    @abstractmethod
    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        """The samples with these numbers, as the model takes them."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """With named groups of parameters, each with its highest learning rate."""

    @abstractmethod
    def rate(self, group: str, step: int, steps: int) -> float:
        """Factor on the learning rate of a group."""

    @abstractmethod
    def terms(self, model: Any, batch: tuple[Tensor, ...], progress: float) -> Terms:
        """The terms of the loss; `model` is the model, wrapped where there are several processes."""

    @abstractmethod
    def loss(self, terms: Any, progress: float) -> Tensor:
        """Their weighted sum."""

    def after_step(self) -> None:  # noqa: B027
        """What keeps the parameters within their bounds."""

    @abstractmethod
    def introduction(self) -> str:
        """What is trained on, and the loss as a formula."""
