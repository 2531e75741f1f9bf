"""The ovals: binary images of an oval whose position follows a parabola (section 5.1 and appendix E)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

IMAGE_SIZE = 64  # pixels a side
SCALES, ROTATIONS, COLUMNS, ROWS = 6, 40, 32, 10  # values of scale, rotation, x, and y given x
CHILD_NOISE = 0.4  # standard deviation of n_y, where that of x is 1
TRAVEL = (38.0, 23.0)  # pixels that the centre moves horizontally and vertically, over all images
SEMI_AXES = (10.0, 7.0)  # pixels, of the smallest oval
LARGEST = 1.2  # the largest oval, relative to the smallest


class OvalImages(Dataset[dict[str, Tensor]]):
    """N binary images, held as bits (39 MB for all 76,800), and the factors that each was drawn from.

    Attributes:
        bits: uint8 (N, H * W / 8), the pixels of an image row by row, eight in a byte, highest bit first.
        factors: float32 (N, 4): x and y in the units of the SEM (y = x^2 + n_y; y grows upwards), scale relative
            to the smallest oval, rotation in radians in [0, pi).
        centers: float32 (N, 2), of the oval in pixels from the top left corner of the image.
    """

    factor_names = ("x", "y", "scale", "rotation")

    def __init__(self, bits: Tensor, factors: Tensor, centers: Tensor) -> None:
        self.bits = bits
        self.factors = factors
        self.centers = centers

    def __len__(self) -> int:
        return self.bits.shape[0]

    def images(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """Some of the images, uint8 (..., H, W), 0 or 255."""
        pixels = np.unpackbits(self.bits[index].numpy(), axis=-1)
        return torch.from_numpy(pixels).mul_(255).unflatten(-1, (IMAGE_SIZE, IMAGE_SIZE))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__(index)

    def __getitems__(self, indices: int | Sequence[int] | Tensor) -> dict[str, Tensor]:
        """A whole batch at once: `images` (..., H, W) and `factors` (..., 4).

        A DataLoader calls this; its collate_fn has nothing left to do.
        """
        return {"images": self.images(indices), "factors": self.factors[indices]}


def make_ovals() -> OvalImages:
    """All 76,800 images: 6 scales x 40 rotations x 32 horizontal x 10 vertical positions, in this order.

    The values of x are the 32 quantiles of N(0, 1) in the middle of equal parts, and those of n_y the 10 of
    N(0, 0.4^2); y = x^2 + n_y. Scale and rotation depend on nothing. Horizontally the centre moves by 38 pixels
    and vertically by 23, so that x says more of the image than y does, and with semi-axes of 7 to 12 pixels
    neighbours overlap: images that share no pixel give no gradient from one to the other. No oval is cut off.
    """
    x = _normal_quantiles(COLUMNS)
    y = x.square().unsqueeze(1) + CHILD_NOISE * _normal_quantiles(ROWS)  # (columns, rows)
    scales = torch.linspace(1, LARGEST, SCALES)
    rotations = torch.arange(ROTATIONS) * (math.pi / ROTATIONS)

    # From the top left corner of the image; the centre of the first pixel is at 0.5.
    column = IMAGE_SIZE / 2 + _centered(x) * TRAVEL[0]
    row = IMAGE_SIZE / 2 - _centered(y) * TRAVEL[1]
    pixel = torch.arange(IMAGE_SIZE) + 0.5
    dx = (pixel - column.unsqueeze(-1)).view(COLUMNS, 1, 1, IMAGE_SIZE)
    dy = (pixel - row.unsqueeze(-1)).unsqueeze(-1)  # (columns, rows, H, 1)

    shapes = torch.cartesian_prod(scales, rotations)
    bits = np.empty((len(shapes), COLUMNS * ROWS, IMAGE_SIZE * IMAGE_SIZE // 8), dtype=np.uint8)
    for index, (scale, rotation) in enumerate(shapes.tolist()):
        xx, xy, yy = _quadratic_form(scale, rotation)
        inside = (xx * dx.square()) + dy * (2 * xy * dx + yy * dy) <= 1
        bits[index] = np.packbits(inside.flatten(2).flatten(0, 1).numpy(), axis=-1)

    position = torch.stack([x.unsqueeze(1).expand_as(y), y], -1).flatten(0, 1)
    center = torch.stack([column.unsqueeze(1).expand_as(row), row], -1).flatten(0, 1)
    factors = torch.cat([position.repeat(len(shapes), 1), shapes.repeat_interleave(COLUMNS * ROWS, 0)], 1)
    return OvalImages(torch.from_numpy(bits).flatten(0, 1), factors, center.repeat(len(shapes), 1))


def _normal_quantiles(n: int) -> Tensor:
    """(n,) of the standard normal distribution, in the middle of n equal parts."""
    return math.sqrt(2) * torch.erfinv((2 * torch.arange(n) + 1) / n - 1)


def _centered(values: Tensor) -> Tensor:
    """Moved and scaled to [-1/2, 1/2]."""
    return (values - values.amin()) / (values.amax() - values.amin()) - 0.5


def _quadratic_form(scale: float, rotation: float) -> tuple[float, float, float]:
    """a, b, c of the oval a dx^2 + 2 b dx dy + c dy^2 <= 1, turned against the clock; dy points downwards."""
    long, short = ((scale * axis) ** -2 for axis in SEMI_AXES)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    return (
        long * cosine**2 + short * sine**2,
        (short - long) * sine * cosine,
        long * sine**2 + short * cosine**2,
    )
