"""Extrapolated frames beside the true ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In pixels of the PNG.
_FRAME = 130  # least width of a frame, rounded up to a whole multiple of the image's
_GAP = 6  # between frames of one sample, and between truth and prediction
_SPLIT = 34  # between the observed frames and the extrapolated ones
_SAMPLE_GAP = 26
_LEFT, _RIGHT, _TOP, _BOTTOM = 96, 20, 92, 20


def draw_extrapolation(
    truth: ArrayLike | Tensor, predicted: ArrayLike | Tensor, observed: int, path: str | Path
) -> Path:
    """Draw the frames of n samples, time from left to right, each true row above the predicted one.

    To be seen: whether the object is where it should be, and how it fares the further the model extrapolates.
    The frames that the model was given stand left of a line, those that it extrapolated right of it, framed
    in colour.

    Args:
        truth: (n, T, H, W, C), C 1 or 3, n and T at least 1; uint8, or float in [0, 1].
        predicted: (n, T, H, W, C), the reconstructions of the observed frames, then the extrapolations;
            uint8, or float, clipped to [0, 1] for drawing.
        observed: how many of the T frames the model was given, 1 to T.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a shape, a value of `truth`, or `observed` does not fit, or a value is not finite.
    """
    true_frames = _frames("truth", truth)
    model_frames = _frames("predicted", predicted)
    if model_frames.shape != true_frames.shape:
        raise ValueError(f"predicted must have the shape of truth, {true_frames.shape}, got {model_frames.shape}")
    if true_frames.min() < 0 or true_frames.max() > 1:
        raise ValueError(
            f"truth must be uint8 or lie in [0, 1], got {true_frames.min():.3g} to {true_frames.max():.3g}"
        )
    n, steps, rows, columns = true_frames.shape[:4]
    if not 1 <= observed <= steps:
        raise ValueError(f"observed must be between 1 and the {steps} frames of truth, got {observed}")

    # A whole number of screen pixels for each pixel of the image: all of them look equally large.
    zoom = math.ceil(_FRAME / columns)
    wide, high = zoom * columns, zoom * rows
    split = _SPLIT - _GAP if observed < steps else 0
    lefts = [_LEFT + t * (wide + _GAP) + (split if t >= observed else 0) for t in range(steps)]
    width = lefts[-1] + wide + _RIGHT
    pair = 2 * high + _GAP
    height = _TOP + n * pair + (n - 1) * _SAMPLE_GAP + _BOTTOM
    figure = _canvas.new_figure(width / _canvas.DPI, height / _canvas.DPI)

    for sample in range(n):
        top = _TOP + sample * (pair + _SAMPLE_GAP)
        for row, (name, frames) in enumerate((("truth", true_frames), ("model", model_frames))):
            y = top + row * (high + _GAP)
            _write(figure, _LEFT - 14, y + high / 2, name, ha="right")
            for t in range(steps):
                extrapolated = row == 1 and t >= observed
                _draw_frame(figure, frames[sample, t], (lefts[t], y, wide, high), extrapolated)
    for t in range(steps):
        _write(figure, lefts[t] + wide / 2, _TOP - 18, f"$t = {t + 1}$")
    _head(figure, lefts[0], lefts[observed - 1] + wide, "observed", _canvas.INK)
    if observed < steps:
        _head(figure, lefts[observed], lefts[-1] + wide, "extrapolated", _canvas.VERMILLION)
        x = (lefts[observed] + lefts[observed - 1] + wide) / 2
        _line(figure, (x, x), (22, height - _BOTTOM), _canvas.PALE_GREY)
    return _canvas.save(figure, path)


def _frames(name: str, value: ArrayLike | Tensor) -> np.ndarray:
    """Float frames (n, T, H, W, C), uint8 mapped to [0, 1]."""
    frames = _canvas.as_array(value)
    if frames.ndim != 5 or frames.shape[-1] not in (1, 3) or frames.size == 0:
        raise ValueError(f"{name} must have shape (n, T, H, W, C) with C 1 or 3, got {frames.shape}")
    if frames.dtype == np.uint8:
        return frames / 255.0
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"{name} must be uint8 or float, got {frames.dtype}")
    if not np.isfinite(frames).all():
        raise ValueError(f"{name} must be finite")
    return frames.astype(np.float64)


def _draw_frame(figure: Figure, frame: np.ndarray, box: tuple[int, int, int, int], extrapolated: bool) -> None:
    """One frame (H, W, C) in the box (left, top, width, height), in pixels from the upper left."""
    left, top, wide, high = box
    width, height = _size(figure)
    axes = figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))
    frame = np.clip(frame, 0, 1)
    axes.imshow(
        frame.repeat(3, axis=-1) if frame.shape[-1] == 1 else frame, interpolation="nearest", aspect="auto"
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(
        color=_canvas.VERMILLION if extrapolated else _canvas.PALE_GREY,
        linewidth=1.6 if extrapolated else 0.6,
    )


def _head(figure: Figure, left: float, right: float, text: str, colour: str) -> None:
    """A title over the columns from left to right, with a rule below it."""
    _write(figure, (left + right) / 2, 26, text, color=colour, size=10, weight="bold")
    _line(figure, (left, right), (46, 46), colour)


def _line(figure: Figure, x: tuple[float, float], y: tuple[float, float], colour: str) -> None:
    from matplotlib.lines import Line2D

    width, height = _size(figure)
    figure.add_artist(
        Line2D(
            [v / width for v in x],
            [1 - v / height for v in y],
            color=colour,
            linewidth=1,
            solid_capstyle="butt",
        )
    )


def _write(figure: Figure, x: float, y: float, text: str, **style: object) -> None:
    width, height = _size(figure)
    style = {"size": 9, "ha": "center", "va": "center", "color": _canvas.INK, **style}
    figure.text(x / width, 1 - y / height, text, style)


def _size(figure: Figure) -> tuple[float, float]:
    """Width and height in pixels."""
    width, height = figure.get_size_inches() * _canvas.DPI
    return float(width), float(height)
