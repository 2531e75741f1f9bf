"""Structural Hamming distance of temporal graphs whose latents have no given order."""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_graphs
from causalvae_fast.metrics.shd import count_differences

MAX_LATENTS = 8  # 8! = 40,320 permutations take about a second, 9! ten times that


@dataclass(frozen=True)
class AlignedSHD:
    """The distance under the best permutation, and that permutation.

    Attributes:
        shd: the structural Hamming distance.
        permutation: a permutation of 0 .. latents - 1. Latent `permutation[k]` of the learned graph plays the
            role of latent k of the true one, in every frame. So `z[..., list(permutation)]`, for z (..., T,
            latents), puts the learned latents in the order of the truth.
    """

    shd: int
    permutation: tuple[int, ...]


def shd_within_frames(
    adjacency: Tensor, truth: Tensor, frames: int, latents: int, *, reversed_cost: int = 1
) -> AlignedSHD:
    """The least `shd` over all permutations of the latents within a frame, the same one in every frame.

    A model identifies its latents up to their order only, and an encoder that the frames share gives them the
    same order in each frame. Variable k of frame t is node `t * latents + k`.

    Args:
        adjacency: the learned graph, boolean (d, d) with d = frames * latents, [i, j] true where i -> j.
        truth: the true graph, boolean (d, d), in the same convention.
        frames: number of time steps, at least 1.
        latents: variables in each time step, 1 to 8: all `latents!` permutations are tried.
        reversed_cost: as in `shd`.

    Returns:
        The distance and the permutation that reaches it; of several, the first in lexicographic order, so
        the identity if that is one of them.

    Raises:
        TypeError: if a matrix is not a boolean tensor.
        ValueError: as in `shd`; if `frames` or `latents` is below 1, their product is not d, or `latents` is
            above 8.

    >>> learned = torch.zeros(4, 4, dtype=torch.bool)
    >>> learned[1, 3] = True  # latent 1 of frame 0 -> latent 1 of frame 1
    >>> truth = torch.zeros(4, 4, dtype=torch.bool)
    >>> truth[0, 2] = True
    >>> shd_within_frames(learned, truth, frames=2, latents=2)
    AlignedSHD(shd=0, permutation=(1, 0))
    """
    check_graphs(adjacency, truth, reversed_cost)
    for name, value in (("frames", frames), ("latents", latents)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    d = adjacency.shape[0]
    if frames * latents != d:
        raise ValueError(f"frames * latents must be the {d} nodes of adjacency, got {frames} * {latents}")
    if latents > MAX_LATENTS:
        raise ValueError(f"latents must be at most {MAX_LATENTS}, since all permutations are tried, got {latents}")

    learned, truth = adjacency.cpu(), truth.cpu()
    first_of_frame = latents * torch.arange(frames, device="cpu")[:, None]  # (T, 1)
    best: AlignedSHD | None = None
    for permutation in permutations(range(latents)):
        nodes = (first_of_frame + torch.tensor(permutation, device="cpu")).flatten()  # (d,)
        distance = count_differences(learned[nodes[:, None], nodes], truth, reversed_cost)
        if best is None or distance < best.shd:
            best = AlignedSHD(distance, permutation)
    assert best is not None
    return best
