"""Samples of the prior beside those of the aggregate posterior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from causalvae_fast.figures import _canvas

_PANEL = 2.3  # inches


def draw_prior_posterior(
    panels: Sequence[tuple[str, ArrayLike | Tensor, ArrayLike | Tensor, Sequence[int]]], path: str | Path
) -> Path:
    """Draw the prior above the aggregate posterior, one column for each model.

    To be seen: whether the latents of the data are distributed as the prior says. The two panels of a column have
    the same axes.

    Args:
        panels: for each model a title, samples (N, 2) of the prior, samples (M, 2) of the aggregate posterior, and
            the numbers of the two latents, from 0.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is no panel or samples have another shape.
    """
    if not panels:
        raise ValueError("panels must have at least one model, got none")
    columns = [(title, _canvas.as_array(p), _canvas.as_array(q), pair) for title, p, q, pair in panels]
    for title, prior, posterior, _ in columns:
        for name, value in (("prior", prior), ("posterior", posterior)):
            if value.ndim != 2 or value.shape[1] != 2 or len(value) == 0:
                raise ValueError(f"the {name} of {title!r} must have shape (N, 2), N >= 1, got {value.shape}")
    left, top, bottom, gap = 0.95, 0.5, 0.55, 0.55
    width = left + len(columns) * _PANEL + (len(columns) - 1) * gap + 0.2
    height = top + 2 * _PANEL + 0.2 + bottom
    figure = _canvas.new_figure(width, height)
    for column, (title, prior, posterior, pair) in enumerate(columns):
        both = np.concatenate([prior, posterior])
        low, high = np.quantile(both, 0.002, axis=0), np.quantile(both, 0.998, axis=0)
        margin = 0.08 * (high - low) + 1e-6
        for row, (samples, colour) in enumerate(((prior, _canvas.BLUE), (posterior, _canvas.VERMILLION))):
            x0 = left + column * (_PANEL + gap)
            y0 = bottom + (1 - row) * (_PANEL + 0.2)
            axes = figure.add_axes((x0 / width, y0 / height, _PANEL / width, _PANEL / height))
            axes.scatter(samples[:, 0], samples[:, 1], s=3, color=colour, alpha=0.35, lw=0)
            axes.set(
                xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1])
            )
            axes.tick_params(labelsize=8, color=_canvas.GREY, labelcolor=_canvas.INK, length=3)
            axes.tick_params(labelbottom=row == 1)
            axes.spines[:].set(color=_canvas.PALE_GREY)
            axes.locator_params(nbins=5)
            axes.set_ylabel(f"$z_{{{pair[1] + 1}}}$", size=10, labelpad=2)
            if row == 0:
                axes.set_title(title, size=11, color=_canvas.INK)
            else:
                axes.set_xlabel(f"$z_{{{pair[0] + 1}}}$", size=10, labelpad=2)
            if column == 0:
                name = ("prior", "aggregate posterior")[row]
                figure.text(
                    0.18 / width, (y0 + _PANEL / 2) / height, name, size=10, rotation=90, ha="center", va="center"
                )
    return _canvas.save(figure, path)
