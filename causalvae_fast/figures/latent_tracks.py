"""The latents of a video over time, and what the SEM says they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas

_WIDTH, _PANEL = 6.4, 1.25  # inches


def draw_latent_tracks(
    means: ArrayLike | Tensor,
    spreads: ArrayLike | Tensor,
    predicted: ArrayLike | Tensor,
    path: str | Path,
) -> Path:
    """Draw each latent over the frames of one video, a panel for each.

    To be seen: which latents follow what happens, smoothly, and whether the SEM foresees them: the line is the
    posterior's mean, the band two standard deviations to either side, the dots what f gives for a frame from the
    means of the frames before. All panels have the same scale.

    Args:
        means: (T, k), the posterior's, T at least 1.
        spreads: (T, k), its standard deviations.
        predicted: (T, k); NaN where a frame has too few before it.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a shape does not fit.
    """
    z, s, f = (_canvas.as_array(value).astype(np.float64) for value in (means, spreads, predicted))
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"means must have shape (T, k), got {z.shape}")
    for name, value in (("spreads", s), ("predicted", f)):
        if value.shape != z.shape:
            raise ValueError(f"{name} must have the shape of means, {z.shape}, got {value.shape}")
    frames, latents = z.shape
    left, right, top, bottom, gap = 0.6, 0.2, 0.4, 0.5, 0.12
    height = top + latents * _PANEL + (latents - 1) * gap + bottom
    figure = _canvas.new_figure(_WIDTH, height)
    low, high = float((z - 2 * s).min()), float((z + 2 * s).max())
    margin = 0.05 * (high - low) or 0.5
    time = np.arange(1, frames + 1)
    for latent in range(latents):
        y0 = height - top - (latent + 1) * _PANEL - latent * gap
        axes = figure.add_axes((left / _WIDTH, y0 / height, (_WIDTH - left - right) / _WIDTH, _PANEL / height))
        mean, spread = z[:, latent], s[:, latent]
        axes.fill_between(time, mean - 2 * spread, mean + 2 * spread, color=_canvas.BLUE, alpha=0.2, lw=0)
        axes.plot(time, mean, color=_canvas.BLUE, lw=1.4, label="posterior")
        axes.plot(time, f[:, latent], ".", color=_canvas.VERMILLION, ms=4, label="f of the frames before")
        axes.set(xlim=(0.5, frames + 0.5), ylim=(low - margin, high + margin))
        axes.set_ylabel(f"$z_{{t,{latent + 1}}}$", size=11, labelpad=2)
        axes.tick_params(labelsize=8, color=_canvas.GREY, labelcolor=_canvas.INK, length=3)
        axes.tick_params(labelbottom=latent == latents - 1)
        axes.spines[:].set(color=_canvas.PALE_GREY)
        if latent == 0:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    figure.text(0.5 + (left - right) / 2 / _WIDTH, 0.12 / height, "frame t", size=10, ha="center")
    return _canvas.save(figure, path)
