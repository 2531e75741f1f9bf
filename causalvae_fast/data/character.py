"""The character that moves: a small sprite drawn here, or the user's own image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from causalvae_fast.data.images import read_image

# A round fellow with an antenna, large eyes and boots. One letter a pixel.
_DRAWING = """
....rr....
....kk....
..kkkkkk..
.khhtttTk.
khttttttTk
kwwkttwwkk
kwwkttwwkk
kttttttTTk
.ktTmmTTk.
.kyykkyyk.
.kkk..kkk.
"""

_PALETTE = {  # RGB, 0 to 255
    "k": (24, 22, 48),  # outline
    "r": (255, 96, 84),  # antenna
    "t": (58, 205, 190),  # body
    "h": (150, 245, 225),  # its light side
    "T": (30, 150, 160),  # its shadow
    "w": (255, 255, 255),  # eyes
    "m": (255, 130, 120),  # mouth
    "y": (255, 200, 60),  # boots
}


def load_character(path: Path | None = None, size: int = 11) -> Tensor:
    """The sprite as float32 RGBA (h, w, 4) in [0, 1], alpha not premultiplied, of at most `size` pixels a side.

    Args:
        path: an image file to use in place of the drawing, with its alpha channel if it has one. It is resized
            so that its longer side has `size` pixels.
        size: longer side, in pixels. The drawing has its own size, 11 x 10, whatever this says.

    Raises:
        FileNotFoundError: if there is no file at `path`.
        ValueError: if it is not a readable image, or is transparent everywhere.
    """
    if path is None:
        return _draw()
    sprite = read_image(path, "RGBA", longest_side=size)
    if not bool((sprite[..., 3] > 0).any()):
        raise ValueError(f"{path} is transparent everywhere: give a sprite with something to see")
    return sprite


def _draw() -> Tensor:
    rows = _DRAWING.split()
    sprite = torch.zeros(len(rows), len(rows[0]), 4)
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            if letter in _PALETTE:
                sprite[y, x] = torch.tensor([*_PALETTE[letter], 255]) / 255
    return sprite
