"""What ops take and give: one tensor or several, and gradients of which some are not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]  # one for each input, None where it was not wanted


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def one_or_all(outputs: Any) -> Any:
    outputs = tuple(outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def filled(gradients: Sequence[Tensor | None], inputs: Tensors) -> list[Tensor]:
    """Ops of torch.library return tensors: an empty one for a gradient that is not wanted."""
    return [t.new_empty(0) if g is None else g for g, t in zip(gradients, inputs, strict=True)]


def shaped(inputs: Tensors, wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients without values, as ops of torch.library return them."""
    return [t.new_empty(t.shape if want else 0) for t, want in zip(inputs, wanted, strict=True)]


def where_wanted(gradients: Tensors, wanted: Sequence[bool]) -> Gradients:
    return [g if want else None for g, want in zip(gradients, wanted, strict=True)]
