"""What configurations check, and the error they raise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the entry, or the file, and the remedy."""


def check_numbers(
    config: Any,
    names: Sequence[str],
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Require entries that are finite and in range."""
    bounds = [("at least", at_least), ("above", above), ("at most", at_most)]
    text = " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= at_least and value > above and value <= at_most):
            raise ConfigError(f"{name} must be {text}, got {value}")


def check_device(device: str) -> None:
    """Require the name of a kind of device."""
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda or mps, got {device!r}")


def check_fraction(config: Any, name: str) -> None:
    """Require an entry between 0 and 1, neither of which it may be."""
    value = getattr(config, name)
    if not 0 < value < 1:
        raise ConfigError(f"{name} must be above 0 and below 1, got {value}")
