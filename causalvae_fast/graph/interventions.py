"""Interventions do(z_i = v): what a user may ask for, and which nodes it reaches."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping

import torch
from torch import Tensor

Do = Mapping[int, float | Tensor]  # {node: value}


def intervention(do: Do | None, like: Tensor, shape: torch.Size) -> tuple[Tensor | None, Tensor | None]:
    """The interventions on the N = shape.numel() samples of `like` (N, d), as the ops take them.

    Args:
        do: {node: value}; a value is a number or has the shape `shape`.
        like: gives d, dtype and device.
        shape: of the samples.

    Returns:
        Mask (d,) of the replaced nodes and values (N, d), or None and None where nothing is replaced.

    Raises:
        TypeError: if `do` is no mapping, or a value neither a number nor a tensor.
        ValueError: if a node is not in 0 .. d - 1, or a value has another shape or is NaN. torch.compile and the
            transforms of torch.func read no values, so that NaN passes there.
    """
    if do is not None and not isinstance(do, Mapping):
        raise TypeError(f"do must be a mapping {{node: value}}, got {type(do).__name__}")
    if not do:
        return None, None
    d = like.shape[-1]
    mask = torch.zeros(d, dtype=torch.bool, device=like.device)
    columns = list(torch.zeros_like(like).unbind(-1))
    for node, value in do.items():
        if isinstance(node, bool) or not (hasattr(node, "__index__") and 0 <= operator.index(node) < d):
            raise ValueError(f"do names node {node!r}, but the nodes are 0 to {d - 1}")
        if not isinstance(value, (int, float, Tensor)):
            raise TypeError(f"do[{node}] must be a number or a tensor, got {type(value).__name__}")
        if _is_nan(value):
            raise ValueError(f"do[{node}] must be a number, got NaN")
        value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
        if value.shape not in ((), shape):
            raise ValueError(f"do[{node}] must be a number or have shape {tuple(shape)}, got {tuple(value.shape)}")
        mask[node] = True
        columns[node] = value.expand(shape).reshape(-1)
    return mask, torch.stack(columns, dim=-1)


def descendants(influence: Tensor, nodes: Tensor) -> Tensor:
    """Mask of the nodes that are reached from `nodes`, a mask (d,), or n masks (d, n), by one edge or more.

    `influence` (d, d), (child, parent), is true where there is an edge.
    """
    edges = influence.to(torch.float32)
    reached = torch.zeros_like(nodes)
    while True:
        found = edges @ (nodes | reached).to(edges.dtype) > 0
        if torch.equal(found, reached):
            return reached
        reached = found


def _is_nan(value: float | Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if not isinstance(value, Tensor):
        return math.isnan(value)
    return not torch._C._are_functorch_transforms_active() and bool(value.isnan().any())
