"""Reading the user's own images: a sprite, or a directory of backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def read_image(
    path: Path, mode: str, *, longest_side: int | None = None, shortest_side: int | None = None
) -> Tensor:
    """An image file as float32 (H, W, C) in [0, 1], shrunk or enlarged to the given side, if any, in pixels.

    Args:
        path: the file.
        mode: of Pillow: "RGB" for C = 3, "RGBA" for C = 4 (opaque where the file has no alpha channel).
        longest_side: resize so that the longer side has this many pixels.
        shortest_side: resize so that the shorter side has this many pixels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not an image that Pillow can read.
        ImportError: if Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'causalvae_fast[train]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}: give the path of a PNG, JPEG or other image")
    try:
        with Image.open(path) as opened:
            image = opened.convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a readable image ({error}): give a PNG, JPEG or other image") from error
    side = longest_side or shortest_side
    if side is not None:
        reference = max(image.size) if longest_side else min(image.size)
        width, height = (max(1, round(length * side / reference)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255)


def list_images(directory: Path) -> list[Path]:
    """The image files directly in a directory, sorted by name.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if it holds no image.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no directory at {directory}: give a directory of images")
    images = sorted(
        path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not images:
        raise ValueError(f"{directory} holds no images: put files in it that end in {', '.join(SUFFIXES)}")
    return images
