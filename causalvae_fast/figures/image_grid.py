"""A grid of images, with what its rows and columns are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas

_CELL = 0.85  # inches, the longer side of an image
_GAP = 0.05
_LETTER = 0.085  # width, in inches


def draw_image_grid(
    images: ArrayLike | Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | Path,
    *,
    caption: str = "",
    group: int = 1,
) -> Path:
    """Draw images side by side, as they are.

    Args:
        images: (R, S, H, W, C), C 1 or 3; uint8, or float, clipped to [0, 1].
        rows: R labels, to the left; may hold mathematics between dollars.
        columns: S labels, above; or none.
        path: of the PNG to write.
        caption: a line below.
        group: rows that belong together: a gap follows each group.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a shape, or the number of labels, does not fit.
    """
    cells = _canvas.as_array(images)
    if cells.ndim != 5 or cells.shape[-1] not in (1, 3) or 0 in cells.shape:
        raise ValueError(f"images must have shape (R, S, H, W, C) with C 1 or 3, got {cells.shape}")
    if len(rows) != cells.shape[0] or len(columns) not in (0, cells.shape[1]):
        raise ValueError(
            f"rows and columns must have a label for each of {cells.shape[0]} rows and {cells.shape[1]} columns, "
            f"got {len(rows)} and {len(columns)}"
        )
    cells = np.clip(cells / 255.0 if cells.dtype == np.uint8 else cells, 0, 1)
    count, steps, pixels_high, pixels_wide = cells.shape[:4]
    longest = max(pixels_high, pixels_wide)
    wide, high = _CELL * pixels_wide / longest, _CELL * pixels_high / longest
    plain = max(len(label.replace("$", "").replace("_", "").replace("{", "").replace("}", "")) for label in rows)
    left, top, bottom = 0.2 + _LETTER * plain, 0.32 if columns else 0.1, 0.36 if caption else 0.1
    groups = math.ceil(count / group)
    width = max(left + steps * (wide + _GAP) + 0.1, 0.07 * len(caption) + 0.2)
    height = top + count * (high + _GAP) + (groups - 1) * 0.14 + bottom
    figure = _canvas.new_figure(width, height)
    for row in range(count):
        y = top + row * (high + _GAP) + (row // group) * 0.14  # of the upper edge, from above
        middle = 1 - (y + high / 2) / height
        figure.text((left - 0.1) / width, middle, rows[row], size=10, ha="right", va="center", color=_canvas.INK)
        for step in range(steps):
            x = left + step * (wide + _GAP)
            axes = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
            cell = cells[row, step]
            axes.imshow(cell.repeat(3, axis=-1) if cell.shape[-1] == 1 else cell, aspect="auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=_canvas.PALE_GREY, linewidth=0.6)
            if row == 0 and columns:
                axes.set_title(columns[step].replace("-", "\N{MINUS SIGN}"), size=9, color=_canvas.INK, pad=4)
    if caption:
        figure.text(0.5, 0.12 / height, caption, size=9, ha="center", color=_canvas.INK)
    return _canvas.save(figure, path)
