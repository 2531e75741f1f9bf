"""Which edges a graph may have, before any is learned."""

import torch
from torch import Tensor

from causalvae_fast.ops._checks import check_integer, may_read


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
        TypeError: if `frames`, `latents` or `lag` is no integer.
        ValueError: if one of them is below 1.

    >>> temporal_mask(frames=2, latents=2).int()
    tensor([[0, 0, 0, 0],
            [0, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 0, 0]], dtype=torch.int32)
    """
    for name, value in (("frames", frames), ("latents", latents), ("lag", 1 if lag is None else lag)):
        check_integer(name, value, 1)
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
        TypeError: if d is no integer, or `allowed` no tensor.
        ValueError: if d is below 1, or if `allowed` has another shape or an edge on or above the diagonal.
    """
    check_integer("d", d, 1)
    if allowed is None:
        return torch.ones(d, d, dtype=torch.bool).tril(-1)
    if not isinstance(allowed, Tensor):
        raise TypeError(
            f"allowed must be a boolean tensor ({d}, {d}), got {type(allowed).__name__}: for an array or a list, "
            "torch.as_tensor"
        )
    if allowed.shape != (d, d):
        raise ValueError(f"allowed must have shape ({d}, {d}), got {tuple(allowed.shape)}")
    allowed = allowed.bool()
    if bool(allowed.triu().any()):
        raise ValueError(
            "allowed is (child, parent) and must be strictly lower triangular: a parent comes before its child"
        )
    return allowed.clone()


def check_gates(edges: Tensor, allowed: Tensor, learned: Tensor | None = None) -> None:
    """The gates (d, d), (child, parent), lie in [0, 1], and are 0 where neither mask (d, d) has an edge.

    `allowed` is the mask of the mechanism, `learned` that of learned gates, which may be open where the mechanism
    has no edge.

    That costs a look at their values. It is left out inside of torch.compile and the transforms of torch.func, for
    gates with a gradient, as those that are drawn in training, and for floats on another device than the CPU,
    which would have to wait for it.

    Raises:
        TypeError: if the gates are complex.
        ValueError: if they are on another device than `allowed`, or have another value.
    """
    if edges.is_complex():
        raise TypeError(f"edges must be real, got {edges.dtype}")
    if edges.device != allowed.device:
        raise ValueError(f"edges is on {edges.device}, but the prior on {allowed.device}: move one of them")
    if edges.requires_grad or not may_read(edges):
        return
    if edges.is_floating_point() and not edges.is_cpu:
        return
    least, greatest = (float(value) for value in edges.aminmax())
    if not (least >= 0 and greatest <= 1):
        raise ValueError(
            f"edges is (child, parent), in [0, 1]; got values from {least:g} to {greatest:g}. For weights, pass "
            "(weights != 0)"
        )
    if bool((edges.bool() & ~(allowed if learned is None else allowed | learned)).any()):
        raise ValueError(
            "edges is (child, parent), in [0, 1]; got an edge where the mechanism allows none. adjacency() is "
            "(parent, child): pass adjacency().mT. For all edges that are allowed: mechanism.allowed"
        )
