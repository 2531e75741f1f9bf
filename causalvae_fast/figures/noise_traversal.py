"""What an image does when the noise of one latent runs through its values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 0.82  # inches
_PANEL = 2.0


def draw_noise_grid(images: ArrayLike | Tensor, latents: Sequence[int], reach: float, path: str | Path) -> Path:
    """Draw the images as a grid: a row for each latent, its noise growing from left to right.

    To be seen: what each latent does, its effects on its children included.

    Args:
        images: (d, steps, H, W) in [0, 1].
        latents: (d,) their numbers, from 0.
        reach: of the noise, from -reach to reach standard deviations.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if `images` has another shape.
    """
    cells = _checked(images, latents)
    rows, steps = cells.shape[:2]
    left, top, bottom = 0.5, 0.42, 0.36
    width, height = left + steps * _CELL + 0.08, top + rows * _CELL + bottom
    figure = _canvas.new_figure(width, height)
    values = np.linspace(-reach, reach, steps)
    for row in range(rows):
        y0 = height - top - (row + 1) * _CELL
        figure.text(0.25 / width, (y0 + _CELL / 2) / height, f"$n_{{{latents[row] + 1}}}$", size=12, ha="center")
        for step in range(steps):
            box = ((left + step * _CELL) / width, y0 / height, 0.95 * _CELL / width, 0.95 * _CELL / height)
            axes = _image(figure, box, cells[row, step], cmap="gray_r", vmin=0, vmax=1)
            if row == 0:
                label = f"{values[step]:+.1f} $\\sigma$" if abs(values[step]) > 1e-9 else "0"
                axes.set_title(label.replace("-", "\N{MINUS SIGN}"), size=9, color=_canvas.INK, pad=4)
    caption = "the noise of one latent, in its standard deviations; that of the others is 0"
    figure.text((left + steps * _CELL / 2) / width, 0.12 / height, caption, size=9, color=_canvas.INK, ha="center")
    return _canvas.save(figure, path)


def draw_noise_superimposed(
    images: ArrayLike | Tensor, latents: Sequence[int], reach: float, path: str | Path
) -> Path:
    """Draw the images of each latent over one another, coloured by where along the traversal they stand.

    To be seen: the path that the object takes. Colours run from the lowest noise (dark) to the highest (light);
    where images overlap they are mixed.

    Args:
        images: (d, steps, H, W) in [0, 1].
        latents: (d,) their numbers, from 0.
        reach: of the noise, from -reach to reach standard deviations.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if `images` has another shape.
    """
    cells = _checked(images, latents)
    rows, steps = cells.shape[:2]
    left, top, bottom, gap, scale = 0.1, 0.36, 0.1, 0.12, 0.95  # scale: what the colours mean, at the right
    width, height = left + rows * (_PANEL + gap) + scale, top + _PANEL + bottom
    figure = _canvas.new_figure(width, height)
    from matplotlib import colormaps

    colours = colormaps["plasma"](np.linspace(0, 0.92, steps))[:, :3]
    for row in range(rows):
        # Ink is subtracted from the paper: what all images share is the mean of their colours.
        weight = cells[row][..., None]
        total = weight.sum(0)
        mixed = (weight * colours[:, None, None]).sum(0) / np.maximum(total, 1e-6)
        cover = cells[row].max(0)[..., None]
        box = ((left + row * (_PANEL + gap)) / width, bottom / height, _PANEL / width, _PANEL / height)
        axes = _image(figure, box, np.clip(1 - cover + cover * mixed, 0, 1))
        axes.set_title(f"$n_{{{latents[row] + 1}}}$", size=12, color=_canvas.INK, pad=4)
    bar = _image(
        figure,
        ((width - scale) / width, bottom / height, 0.14 / width, _PANEL / height),
        colours[::-1, None],
        aspect="auto",
    )
    ends = [f"\N{MINUS SIGN}{reach:g} $\\sigma$", "0", f"+{reach:g} $\\sigma$"]
    bar.set_yticks([steps - 1, (steps - 1) / 2, 0], ends, size=8, color=_canvas.INK)
    bar.yaxis.tick_right()
    bar.tick_params(length=0)
    return _canvas.save(figure, path)


def _image(figure: Figure, box: tuple[float, float, float, float], pixels: np.ndarray, **options: Any) -> Axes:
    """Axes with nothing but an image in a pale frame; the box is (left, bottom, width, height)."""
    axes = figure.add_axes(box)
    axes.imshow(pixels, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=_canvas.PALE_GREY)
    return axes


def _checked(images: ArrayLike | Tensor, latents: Sequence[int]) -> np.ndarray:
    cells = _canvas.as_array(images)
    if cells.ndim != 4 or cells.shape[0] != len(latents) or 0 in cells.shape:
        raise ValueError(f"images must have shape ({len(latents)}, steps, H, W), got {cells.shape}")
    return cells
