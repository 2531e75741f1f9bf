"""Interventions do(z_i = v): what a user may ask for, and which nodes it reaches."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

from causalvae_fast.ops._checks import may_read

Do = Mapping[int, float | Tensor]  # {node: value}


def intervention(do: Do | None, like: Tensor, shape: torch.Size) -> tuple[Tensor | None, Tensor | None]:
    """The interventions on the N = shape.numel() samples of `like` (N, d), as the ops take them.

    Args:
        do: {node: value}; a value is a real number, NumPy's included, or a tensor of the shape `shape`.
        like: gives d, dtype and device.
        shape: of the samples.

    Returns:
        Mask (d,) of the replaced nodes and values (N, d), or None and None where nothing is replaced.

    Raises:
        TypeError: if `do` is no mapping, or a value neither a real number nor a real tensor.
        ValueError: if a node is not in 0 .. d - 1, or a value has another shape or is not finite. torch.compile
            and the transforms of torch.func read no values, so that it passes there.
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
        value = _checked(node, value, like)
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


def _checked(node: int, value: object, like: Tensor) -> Tensor:
    """The value of do[node], as a tensor like `like`."""
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"do[{node}] must be real, got {value.dtype}")
        if may_read(value) and not bool(value.isfinite().all()):
            raise ValueError(f"do[{node}] must be finite, got {value[~value.isfinite()].flatten()[0].item()}")
        return value.to(like)
    # int and float first: that is what torch.compile traces.
    if not isinstance(value, (int, float)) and not isinstance(value, Real):
        remedy = ": for an array or a list, torch.as_tensor" if hasattr(value, "__len__") else ""
        raise TypeError(f"do[{node}] must be a real number or a tensor, got {type(value).__name__}{remedy}")
    if not torch.compiler.is_compiling() and not math.isfinite(value):
        raise ValueError(f"do[{node}] must be finite, got {value}")
    return torch.as_tensor(float(value), dtype=like.dtype, device=like.device)
