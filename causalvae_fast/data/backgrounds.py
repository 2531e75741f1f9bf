"""Backgrounds: drawn at random by a few procedures, or cropped from the user's images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from causalvae_fast.data.images import list_images, read_image


def procedural_backgrounds(n: int, size: int, generator: torch.Generator) -> Tensor:
    """`n` random backgrounds, float32 (n, size, size, 3) in [0, 1], in equal parts of each kind, shuffled."""
    draw = _Painter(size, generator)
    kinds = (draw.gradient, draw.hills, draw.stripes, draw.tiles, draw.clouds, draw.night)
    counts = [n // len(kinds) + (k < n % len(kinds)) for k in range(len(kinds))]
    images = torch.cat([kind(count) for kind, count in zip(kinds, counts, strict=True)])
    return images[torch.randperm(n, generator=generator)].clamp_(0, 1)


def crop_backgrounds(directory: Path, n: int, size: int, generator: torch.Generator) -> Tensor:
    """`n` random crops, float32 (n, size, size, 3) in [0, 1], of the images in a directory.

    Each image is first resized so that its shorter side has 2 * size pixels: a crop shows half of it.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if it holds no image or one that cannot be read.
    """
    images = [read_image(path, "RGB", shortest_side=2 * size) for path in list_images(directory)]
    choice = torch.randint(len(images), (n,), generator=generator)
    crops = torch.empty(n, size, size, 3)
    for index, image in enumerate(images):
        chosen = (choice == index).nonzero().squeeze(1)
        windows = image.unfold(0, size, 1).unfold(1, size, 1)  # (rows, columns, 3, size, size)
        row = torch.randint(windows.shape[0], chosen.shape, generator=generator)
        column = torch.randint(windows.shape[1], chosen.shape, generator=generator)
        crops[chosen] = windows[row, column].permute(0, 2, 3, 1)
    return crops


class _Painter:
    """The kinds of backgrounds; each draws n images (n, size, size, 3) at once."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator
        coordinate = (torch.arange(size) + 0.5) / size
        self.y, self.x = torch.meshgrid(coordinate, coordinate, indexing="ij")  # (size, size), 0 at the top left

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def colors(self, n: int, low: float = 0.1, high: float = 0.95) -> Tensor:
        """(n, 1, 1, 3)"""
        return self.uniform(low, high, n, 1, 1, 3)

    def ramp(self, n: int) -> Tensor:
        """(n, size, size, 1) in [0, 1], linear in a random direction."""
        angle = self.uniform(0, 2 * math.pi, n, 1, 1)
        ramp = (self.x - 0.5) * angle.cos() + (self.y - 0.5) * angle.sin()
        return (ramp / math.sqrt(2) + 0.5).unsqueeze(-1)

    def smooth_noise(self, n: int, cells: int, channels: int) -> Tensor:
        """(n, size, size, channels) in [0, 1], interpolated between cells x cells random values."""
        coarse = torch.rand(n, channels, cells, cells, generator=self.generator)
        fine = F.interpolate(coarse, size=(self.size, self.size), mode="bicubic", align_corners=True)
        return fine.permute(0, 2, 3, 1)

    def gradient(self, n: int) -> Tensor:
        return torch.lerp(self.colors(n), self.colors(n), self.ramp(n))

    def hills(self, n: int) -> Tensor:
        """A sky that brightens towards the horizon, and two ranges of hills."""
        image = torch.lerp(self.colors(n, 0.3, 0.8), self.colors(n, 0.6, 1.0), self.y.unsqueeze(-1))
        for horizon, shade in ((0.55, 0.75), (0.75, 0.5)):
            height = self.uniform(horizon - 0.12, horizon + 0.12, n, 1, 1)
            for amplitude, frequency in ((0.1, 6.0), (0.04, 15.0)):
                phase = self.uniform(0, 2 * math.pi, n, 1, 1)
                pace = frequency * self.uniform(0.6, 1.4, n, 1, 1)
                height = height + amplitude * torch.sin(pace * self.x + phase)
            ground = ((self.y - height) * self.size + 0.5).clamp(0, 1).unsqueeze(-1)  # one pixel of soft edge
            image = torch.lerp(image, shade * self.colors(n, 0.2, 1.0), ground)
        return image

    def stripes(self, n: int) -> Tensor:
        angle = self.uniform(0, math.pi, n, 1, 1)
        period = self.uniform(0.25, 0.6, n, 1, 1)
        phase = self.uniform(0, 1, n, 1, 1)
        wave = torch.sin(2 * math.pi * ((self.x * angle.cos() + self.y * angle.sin()) / period + phase))
        return torch.lerp(self.colors(n), self.colors(n), (0.5 + 1.5 * wave).clamp(0, 1).unsqueeze(-1))

    def tiles(self, n: int) -> Tensor:
        """Bricks: rows of tiles with light joints, every other row shifted, each tile a bit different."""
        rows = torch.randint(3, 6, (n, 1, 1), generator=self.generator)
        columns = torch.randint(2, 5, (n, 1, 1), generator=self.generator)
        v = self.y * rows
        row = v.floor()
        u = self.x * columns + 0.5 * (row % 2)
        column = u.floor()
        joint = ((u - column) < 0.07 * columns) | ((v - row) < 0.07 * rows)
        hue = (torch.sin(12.9898 * column + 78.233 * row + self.uniform(0, 6, n, 1, 1)) * 43758.5).frac()
        brick = self.colors(n, 0.15, 0.9) * (1 + 0.2 * hue.unsqueeze(-1))
        return torch.where(joint.unsqueeze(-1), self.colors(n, 0.4, 0.95), brick)

    def clouds(self, n: int) -> Tensor:
        """Two colours mixed by smooth noise at two scales."""
        mix = 0.7 * self.smooth_noise(n, 4, 1) + 0.3 * self.smooth_noise(n, 9, 1)
        return torch.lerp(self.colors(n), self.colors(n), mix.clamp(0, 1)) + 0.1 * (
            self.smooth_noise(n, 3, 3) - 0.5
        )

    def night(self, n: int) -> Tensor:
        """A dark gradient with stars."""
        sky = torch.lerp(self.colors(n, 0.0, 0.3), self.colors(n, 0.05, 0.5), self.ramp(n))
        bright = torch.rand(n, self.size, self.size, 1, generator=self.generator)
        stars = ((bright - 0.97) / 0.03).clamp_min(0)
        return torch.lerp(sky, torch.tensor([1.0, 1.0, 0.85]), stars)
