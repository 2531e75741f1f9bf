"""Activations of hidden units, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def _tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(x)
    return value, 1 - value.square()


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(x)
    return x * gate, gate * (1 + x * (1 - gate))


def _softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    # The default threshold of 20 would drop 2e-9, more than an op in float64 may be off.
    return functional.softplus(x, threshold=40), torch.sigmoid(x)


def _leaky_relu(x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.leaky_relu(x), torch.where(x > 0, torch.ones_like(x), torch.full_like(x, 0.01))


# phi and phi' at once, both differentiable.
ACTIVATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "tanh": _tanh,
    "silu": _silu,
    "softplus": _softplus,
    "leaky_relu": _leaky_relu,  # with slope 0.01
}
