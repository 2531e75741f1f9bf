"""Validation of the arguments that several metrics share."""

import torch
from torch import Tensor


def check_adjacency(name: str, adjacency: Tensor) -> None:
    """Require a boolean matrix (d, d) without self-loops."""
    if adjacency.dim() != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"{name} must have shape (d, d), got {tuple(adjacency.shape)}")
    if adjacency.dtype != torch.bool:
        raise TypeError(f"{name} must be a boolean adjacency matrix, got {adjacency.dtype}")
    loops = adjacency.diagonal().nonzero().flatten().tolist()
    if loops:
        raise ValueError(f"{name} has self-loops, at the nodes {loops}")


def check_graphs(adjacency: Tensor, truth: Tensor, reversed_cost: int) -> None:
    """Require two graphs with the same nodes, and a cost of a reversed edge of 1 or 2."""
    check_adjacency("adjacency", adjacency)
    check_adjacency("truth", truth)
    if adjacency.shape != truth.shape:
        raise ValueError(
            f"truth must have the shape of adjacency, {tuple(adjacency.shape)}, got {tuple(truth.shape)}"
        )
    if reversed_cost not in (1, 2):
        raise ValueError(f"reversed_cost must be 1 or 2, got {reversed_cost!r}")


def check_images(reconstruction: Tensor, target: Tensor) -> None:
    """Require two batches of images, at least one image of at least one pixel, of one shape and dtype."""
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
