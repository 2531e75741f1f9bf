"""Where the character of a sprite video is: as the pictures show it, and whether it is in view."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.data.sprites import FRAME_SIZE, render

_MARGIN = 2.0  # pixels: a character whose centre is further inside the frame than this is in view
_HALVINGS = 5  # of the distance between positions that are tried


def in_view(positions: Tensor) -> Tensor:
    """Whether positions (..., 2), in pixels, are at least 2 pixels inside the frame: boolean (...)."""
    return ((positions >= _MARGIN) & (positions <= FRAME_SIZE - 1 - _MARGIN)).all(-1)


def videos_in_view(positions: Tensor) -> Tensor:
    """Numbers of the videos, of positions (N, T, 2), in which the character is in view in every frame."""
    return in_view(positions).all(1).nonzero().squeeze(1)


@torch.no_grad()
def locate_character(frames: Tensor, background: Tensor, character: Tensor) -> Tensor:
    """Where the character is in each frame: the position at which it, drawn over the background, is closest.

    Every pixel of the frame is tried first, then the neighbours of the best one at half the distance, and so on
    down to 1/32 of a pixel. What is compared is the squared error.

    Args:
        frames: (N, H, W, 3) in [0, 1].
        background: (N, H, W, 3) in [0, 1], without the character.
        character: RGBA (h, w, 4) in [0, 1], alpha not premultiplied, as from `load_character`.

    Returns:
        (N, 2), the centre of the character (x, y) in pixels.
    """
    best, least = _nearest_pixel(frames, background, character)
    around = torch.cartesian_prod(*2 * [torch.tensor([-1.0, 0.0, 1.0])])
    neighbours = around[around.any(1)]  # (8, 2)
    for level in range(1, _HALVINGS + 1):
        centre = best
        for shift in neighbours / 2**level:
            position = centre + shift
            error = (render(character, background, position) - frames).square().sum((1, 2, 3))
            better = error < least
            best = torch.where(better[:, None], position, best)
            least = torch.where(better, error, least)
    return best


def _nearest_pixel(frames: Tensor, background: Tensor, character: Tensor) -> tuple[Tensor, Tensor]:
    """The best position (N, 2) among all pixels, and its squared error (N,).

    With the character c and what it lets through, t, the error |c + t b - f|^2 is a sum of matrix products of
    positions and frames.
    """
    _, height, width, _ = frames.shape
    positions = torch.cartesian_prod(torch.arange(float(width)), torch.arange(float(height)))
    empty = frames.new_zeros(len(positions), *frames.shape[1:])
    black, white = (render(character, empty + behind, positions) for behind in (0, 1))
    c, t = black.flatten(1), (white - black).flatten(1)  # (positions, H * W * 3)
    f, b = frames.flatten(1), background.flatten(1)
    products = (c * t) @ b.mT - c @ f.mT - t @ (b * f).mT
    error = c.square().sum(1)[:, None] + t.square() @ b.square().mT + 2 * products + f.square().sum(1)
    least, index = error.min(0)
    return positions[index], least
