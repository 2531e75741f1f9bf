"""The sprite videos: a character that moves linearly over a background (section 5.2 and appendix F)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from causalvae_fast.data.backgrounds import crop_backgrounds, procedural_backgrounds
from causalvae_fast.data.character import load_character

FRAME_SIZE = 20  # pixels a side
POSITION_RANGE = (7.0, 12.0)  # of the character's centre in the first two frames, pixels
_CHUNK = 4096  # samples rendered at once: bounds the memory for the float images


class SpriteVideos(Dataset[dict[str, Tensor]]):
    """N videos of T frames, each with its background and the character's positions.

    Attributes:
        frames: uint8 (N, T, H, W, 3).
        background: uint8 (N, H, W, 3), the frame without the character.
        positions: float32 (N, T, 2), the centre of the character (x, y) in pixels; pixel (0, 0) is the top
            left, and a whole number is the centre of a pixel.
    """

    def __init__(self, frames: Tensor, background: Tensor, positions: Tensor) -> None:
        self.frames = frames
        self.background = background
        self.positions = positions

    def __len__(self) -> int:
        return self.frames.shape[0]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "frames": self.frames[index],
            "background": self.background[index],
            "positions": self.positions[index],
        }

    def __getitems__(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """A whole batch at once: the same keys, with a leading dimension of len(indices).

        A DataLoader calls this; its collate_fn has nothing left to do.
        """
        index = torch.as_tensor(indices)
        return {
            "frames": self.frames[index],
            "background": self.background[index],
            "positions": self.positions[index],
        }


def make_sprites(
    n: int,
    frames: int = 3,
    *,
    seed: int = 0,
    sprite: Path | None = None,
    backgrounds: Path | None = None,
) -> SpriteVideos:
    """Draw `n` videos; the same arguments give the same videos.

    Positions at t = 1, 2 are uniform in [7, 12]^2; then x_t = 2 x_{t-1} - x_{t-2}, and the same for y. What
    leaves the frame is clipped. Positions are sub-pixel: the sprite is sampled bilinearly and blended by its
    alpha.

    Args:
        n: number of videos, at least 1.
        frames: in each video, at least 2.
        seed: of backgrounds and positions.
        sprite: an image file of the character, with alpha if it has it; the drawn one by default.
        backgrounds: a directory of images to crop the backgrounds from; drawn ones by default.

    Raises:
        ValueError: if `n` or `frames` is too small, or an image cannot be used.
        FileNotFoundError: if `sprite` or `backgrounds` does not exist.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if frames < 2:
        raise ValueError(f"frames must be at least 2, got {frames}")
    character = load_character(sprite)
    generator = torch.Generator().manual_seed(seed)
    if backgrounds is None:
        images = procedural_backgrounds(n, FRAME_SIZE, generator)
    else:
        images = crop_backgrounds(backgrounds, n, FRAME_SIZE, generator)
    low, high = POSITION_RANGE
    start = low + (high - low) * torch.rand(n, 2, 1, 2, generator=generator)
    first, second = start.unbind(1)  # (n, 1, 2)
    steps = torch.arange(frames, dtype=torch.float32).view(1, frames, 1)
    positions = first + steps * (second - first)
    videos = torch.empty(n, frames, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8)
    for chunk in torch.arange(n).split(_CHUNK):
        for t in range(frames):
            videos[chunk, t] = _to_bytes(render(character, images[chunk], positions[chunk, t]))
    return SpriteVideos(videos, _to_bytes(images), positions)


def render(sprite: Tensor, background: Tensor, position: Tensor) -> Tensor:
    """The sprite blended over backgrounds.

    Args:
        sprite: RGBA (h, w, 4) in [0, 1], alpha not premultiplied.
        background: (N, H, W, 3) in [0, 1].
        position: (N, 2), where the centre of the sprite goes: x and y in pixels.

    Returns:
        (N, H, W, 3) in [0, 1].
    """
    n, height, width, _ = background.shape
    h, w, _ = sprite.shape
    alpha = sprite[..., 3:]
    layers = torch.cat([sprite[..., :3] * alpha, alpha], dim=-1)  # premultiplied: transparent pixels do not bleed
    # The pixel of the sprite, in its own coordinates, that lands on each pixel of the frame; then to the
    # coordinates of grid_sample, where -1 and 1 are the outer edges of the sprite.
    column = torch.arange(width) - position[:, :1] + (w - 1) / 2  # (N, W)
    row = torch.arange(height) - position[:, 1:] + (h - 1) / 2  # (N, H)
    grid = torch.stack(
        [
            ((2 * column + 1) / w - 1).unsqueeze(1).expand(n, height, width),
            ((2 * row + 1) / h - 1).unsqueeze(2).expand(n, height, width),
        ],
        dim=-1,
    )
    source = layers.permute(2, 0, 1).expand(n, 4, h, w)
    placed = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False).permute(0, 2, 3, 1)
    return placed[..., :3] + (1 - placed[..., 3:]) * background


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)
