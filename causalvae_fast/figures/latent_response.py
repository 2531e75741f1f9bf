"""How the latents respond to the position of an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas
from causalvae_fast.metrics import linear_r2

_PANEL = 2.05  # inches
_GAP = 0.22
_MIN_SAMPLES = 8  # what linear_r2 takes for two predictors
_MAX_POINTS = 4000  # more hide one another


def draw_latent_response(
    positions: ArrayLike | Tensor,
    latents: ArrayLike | Tensor,
    path: str | Path,
    names: Sequence[int] | None = None,
) -> Path:
    """Draw each latent over the plane of positions, one panel for each.

    To be seen: which latents carry the position, and in which direction. A latent that does is a smooth
    gradient of colour; one that carries nothing is pale or speckled. The colour is the latent minus its mean,
    on a scale that all panels share, so that the panels can be compared: blue below the mean, red above.
    Above each panel stands the R2 of the latent as a linear function of (x, y), on held-out samples. The y
    axis points down, as in an image.

    Args:
        positions: (N, 2), x and y in pixels, finite; N at least 8. Of more than 4,000 samples, 4,000 are
            drawn and all are scored.
        latents: (N, k), finite, k at least 1.
        path: of the PNG to write.
        names: the numbers of the latents, from 0, where they are not 0 to k - 1.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a shape does not fit or a value is not finite.
    """
    xy = _canvas.as_array(positions).astype(np.float64)
    z = _canvas.as_array(latents).astype(np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or xy.shape[0] < _MIN_SAMPLES:
        raise ValueError(f"positions must have shape (N, 2) with N >= {_MIN_SAMPLES}, got {xy.shape}")
    if z.ndim != 2 or z.shape[0] != xy.shape[0] or z.shape[1] < 1:
        raise ValueError(f"latents must have shape ({xy.shape[0]}, k) with k >= 1, got {z.shape}")
    for name, value in (("positions", xy), ("latents", z)):
        if not np.isfinite(value).all():
            raise ValueError(f"{name} must be finite")

    k = z.shape[1]
    columns = k if k <= 5 else 4
    rows = math.ceil(k / columns)
    left, right, top, bottom = 0.68, 1.0, 0.42, 0.62
    row_height = _PANEL + _GAP + 0.3  # a title stands above each panel
    width = left + columns * _PANEL + (columns - 1) * _GAP + right
    height = top + (rows - 1) * row_height + _PANEL + bottom
    figure = _canvas.new_figure(width, height)

    centred = z - z.mean(0)
    # The quantile keeps a few outliers from making everything else pale.
    reach = float(np.quantile(np.abs(centred), 0.995, axis=0).max()) or 1.0
    r2 = linear_r2(torch.from_numpy(xy), torch.from_numpy(z)).tolist()
    shown = np.random.default_rng(0).permutation(len(xy))[:_MAX_POINTS]
    diameter = float(np.clip(72 * _PANEL / math.sqrt(len(shown)) * 1.1, 1.5, 7))  # points, of a marker
    limits = [_padded(xy[:, axis]) for axis in (0, 1)]
    scatter = None
    for latent in range(k):
        row, column = divmod(latent, columns)
        x0 = left + column * (_PANEL + _GAP)
        y0 = height - top - _PANEL - row * row_height
        axes = figure.add_axes((x0 / width, y0 / height, _PANEL / width, _PANEL / height))
        scatter = axes.scatter(
            xy[shown, 0],
            xy[shown, 1],
            c=centred[shown, latent],
            s=diameter**2,
            cmap="RdBu_r",
            vmin=-reach,
            vmax=reach,
            lw=0,
        )
        axes.set(xlim=limits[0], ylim=limits[1][::-1], facecolor="#DCDCDC")
        axes.set_title(
            f"$z_{{{(latent if names is None else names[latent]) + 1}}}$",
            size=12,
            loc="left",
            color=_canvas.INK,
            pad=5,
        )
        score = "constant" if math.isnan(r2[latent]) else f"$R^2$ = {max(r2[latent], 0.0):.2f}"
        axes.set_title(score, size=9, loc="right", color=_canvas.INK, pad=5)
        axes.tick_params(labelsize=8, color=_canvas.GREY, labelcolor=_canvas.INK, length=3)
        axes.tick_params(labelleft=column == 0, labelbottom=latent + columns >= k)
        axes.spines[:].set(color=_canvas.PALE_GREY)
        axes.locator_params(nbins=5)

    panels_right = left + columns * _PANEL + (columns - 1) * _GAP
    panels_middle = (bottom + height - top) / 2 / height
    figure.text((left + panels_right) / 2 / width, 0.16 / height, "x (pixels)", size=10, ha="center")
    figure.text(0.2 / width, panels_middle, "y (pixels)", size=10, va="center", ha="center", rotation=90)
    assert scatter is not None
    bar_height = min(height - top - bottom, 3.2)
    bar = figure.add_axes(
        (
            (panels_right + 0.2) / width,
            panels_middle - bar_height / 2 / height,
            0.12 / width,
            bar_height / height,
        )
    )
    figure.colorbar(scatter, cax=bar)
    bar.set_ylabel("latent minus its mean", size=9, labelpad=4)
    bar.tick_params(labelsize=8, color=_canvas.GREY, labelcolor=_canvas.INK, length=3)
    bar.spines[:].set(color=_canvas.PALE_GREY)
    return _canvas.save(figure, path)


def _padded(values: np.ndarray) -> tuple[float, float]:
    """The range of the values with a margin, not empty even if they are all equal."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin
