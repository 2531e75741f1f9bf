"""Validation of the arguments that several metrics share."""

import torch
from torch import Tensor


def check_tensor(name: str, value: object) -> None:
    """Require a tensor: an array or a list has none of what follows."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}: convert it by torch.as_tensor")


def check_adjacency(name: str, adjacency: Tensor) -> None:
    """Require a boolean matrix (d, d) without self-loops."""
    check_tensor(name, adjacency)
    if adjacency.dim() != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"{name} must have shape (d, d), got {tuple(adjacency.shape)}")
    if adjacency.dtype != torch.bool:
        remedy = "use x > 0.5" if adjacency.is_floating_point() else "use x.bool() if it holds 0 and 1"
        raise TypeError(f"{name} must be a boolean adjacency matrix, got {adjacency.dtype}: {remedy}")
    loops = adjacency.diagonal().nonzero().flatten().tolist()
    if loops:
        raise ValueError(f"{name} has self-loops, at the nodes {loops}")


def check_graphs(adjacency: Tensor, truth: Tensor, reversed_cost: int = 1) -> None:
    """Require two graphs with the same nodes, and a cost of a reversed edge of 1 or 2."""
    check_adjacency("adjacency", adjacency)
    check_adjacency("truth", truth)
    if adjacency.shape != truth.shape:
        raise ValueError(
            f"truth must have the shape of adjacency, {tuple(adjacency.shape)}, got {tuple(truth.shape)}"
        )
    if reversed_cost not in (1, 2):
        raise ValueError(f"reversed_cost must be 1 or 2, got {reversed_cost!r}")


def check_latents_and_factors(latents: Tensor, factors: Tensor) -> None:
    """Require finite (N, k) and (N, m), k and m at least 1, with factors that vary."""
    for name, value in (("latents", latents), ("factors", factors)):
        check_tensor(name, value)
        if value.dim() != 2 or value.numel() == 0:
            raise ValueError(f"{name} must have two dimensions, neither empty, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite")
    if factors.shape[0] != latents.shape[0]:
        raise ValueError(f"factors must have the {latents.shape[0]} samples of latents, got {factors.shape[0]}")
    constant = (factors.amax(0) == factors.amin(0)).nonzero().flatten().tolist()
    if constant:
        raise ValueError(f"factors has constant columns, {constant}")


def check_images(reconstruction: Tensor, target: Tensor) -> None:
    """Require two batches of images, at least one image of at least one pixel, of one shape and dtype."""
    check_tensor("reconstruction", reconstruction)
    check_tensor("target", target)
    if target.dim() < 2 or target.numel() == 0:
        raise ValueError(f"target must have shape (N, ...) with N >= 1 and pixels, got {tuple(target.shape)}")
    if reconstruction.shape != target.shape:
        raise ValueError(
            f"reconstruction must have the shape of target, {tuple(target.shape)}, "
            f"got {tuple(reconstruction.shape)}"
        )
    if reconstruction.dtype != target.dtype:
        raise TypeError(
            f"reconstruction must have the dtype of target, {target.dtype}, got {reconstruction.dtype}"
        )


def check_samples(a: Tensor, b: Tensor) -> None:
    """Require two sets of finite samples, (n, d) and (m, d), n and m at least 4."""
    for name, value in (("a", a), ("b", b)):
        check_tensor(name, value)
        if value.dim() != 2 or value.shape[0] < 4 or value.shape[1] < 1:
            raise ValueError(f"{name} must have shape (n, d) with n >= 4 and d >= 1, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b must have the {a.shape[1]} dimensions of a, got {b.shape[1]}")
