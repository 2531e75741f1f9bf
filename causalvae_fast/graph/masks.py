"""Which edges a graph may have, before any is learned."""

from typing import SupportsIndex

import torch
from torch import Tensor


def temporal_mask(frames: int, latents: int, lag: int | None = None, instantaneous: bool = False) -> Tensor:
    """Edges that point forward in time, for `frames` time steps of `latents` variables each.

    Variable k of frame t is node `t * latents + k`.

    Args:
        frames: number of time steps, at least 1.
        latents: variables in each time step, at least 1.
        lag: the furthest step back that a parent may stand, at least 1; any earlier frame by default.
        instantaneous: also allow the edges k' -> k with k' < k within a frame.

    Returns:
        Boolean tensor (d, d) with d = frames * latents, (child, parent): true where the edge may exist.
        It is strictly lower triangular.

    Raises:
        ValueError: if `frames`, `latents` or `lag` is below 1.

    >>> temporal_mask(frames=2, latents=2).int()
    tensor([[0, 0, 0, 0],
            [0, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 0, 0]], dtype=torch.int32)
    """
    for name, value in (("frames", frames), ("latents", latents), ("lag", 1 if lag is None else lag)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    frame = torch.arange(frames).repeat_interleave(latents)  # (d,) the frame of each node
    steps_back = frame[:, None] - frame[None, :]  # (d, d) from child to parent
    allowed = (steps_back >= 1) & (steps_back <= (frames if lag is None else lag))
    if instantaneous:
        allowed |= (steps_back == 0) & torch.ones_like(allowed).tril(-1)
    return allowed


def check_allowed(allowed: Tensor | None, d: int) -> Tensor:
    """The mask (d, d), (child, parent), of the edges that a graph of `d` ordered nodes may have.

    Every edge j -> i with j < i if `allowed` is None.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d is below 1, or if `allowed` has another shape or an edge on or above the diagonal.
    """
    if not isinstance(d, SupportsIndex) or isinstance(d, bool | Tensor):
        raise TypeError(f"d must be an integer, the number of nodes, got {type(d).__name__}")
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")
    if allowed is None:
        return torch.ones(d, d, dtype=torch.bool).tril(-1)
    if allowed.shape != (d, d):
        raise ValueError(f"allowed must have shape ({d}, {d}), got {tuple(allowed.shape)}")
    allowed = allowed.bool()
    if bool(allowed.triu().any()):
        raise ValueError(
            "allowed is (child, parent) and must be strictly lower triangular: a parent comes before its child"
        )
    return allowed.clone()
