"""The networks of the models: multilayer perceptrons, and convolutional ones for frames of any size."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_COARSEST = 8  # pixels; larger frames are halved until no side is longer


def perceptron(inputs: int, hidden: int, layers: int) -> nn.Sequential:
    """`layers` layers of `hidden` units, each with its leaky ReLU."""
    sizes = [inputs] + layers * [hidden]
    return nn.Sequential(*(m for n in range(layers) for m in (nn.Linear(sizes[n], sizes[n + 1]), nn.LeakyReLU())))


def conv_encoder(height: int, width: int, colours: int, channels: int, hidden: int) -> nn.Sequential:
    """Frames (N, C, H, W) to features (N, hidden): convolutions that halve, then a layer of `hidden` units.

    The first convolution has `channels` channels, the second twice as many, all others four times as many.
    """
    sizes = _halvings(height, width)
    widths = _channels(colours, channels, len(sizes))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU()]
    cells = sizes[-1][0] * sizes[-1][1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * cells, hidden), nn.LeakyReLU())


def conv_decoder(inputs: int, height: int, width: int, outputs: int, channels: int, hidden: int) -> nn.Sequential:
    """Numbers (N, inputs) to maps (N, outputs, H, W) without an activation: the encoder, mirrored."""
    sizes = _halvings(height, width)
    widths = _channels(outputs, channels, len(sizes))
    coarse = (widths[-1], *sizes[-1])
    layers: list[nn.Module] = [
        nn.Linear(inputs, hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, coarse[0] * coarse[1] * coarse[2]),
        nn.LeakyReLU(),
        nn.Unflatten(1, coarse),
    ]
    for step in range(len(sizes) - 1, 0, -1):
        layers += [
            nn.ConvTranspose2d(widths[step], widths[step - 1], 4, stride=2, padding=1),
            Crop(*sizes[step - 1]),
            nn.LeakyReLU(),
        ]
    return nn.Sequential(*layers[:-1])


class Crop(nn.Module):
    """The upper left height x width pixels: doubling a half that was rounded up gives a row or column too many."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]


class FromPixels(nn.Module):
    """Pixels (N, H * W * C) to frames (N, C, H, W)."""

    def __init__(self, height: int, width: int, colours: int) -> None:
        super().__init__()
        self.shape = (height, width, colours)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.shape).movedim(-1, 1)


class ToPixels(nn.Module):
    """Frames (N, C, H, W) to pixels (N, H * W * C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


def _halvings(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes from (height, width) down to one of at most 8 x 8 pixels, halves rounded up; at least two
    sizes."""
    sizes = [(height, width)]
    while len(sizes) < 2 or max(height, width) > _COARSEST:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def _channels(outer: int, channels: int, sizes: int) -> list[int]:
    """Channels at each size, from the finest."""
    return [outer] + [channels * min(2**step, 4) for step in range(sizes - 1)]
