"""What the figures share: an import of matplotlib with a remedy, a figure without global state, colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150

# From the palette of Okabe and Ito, told apart by readers with any colour vision.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
INK = "#262626"
GREY = "#8C8C8C"
PALE_GREY = "#D0D0D0"


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` x `height` inches, drawn without a screen and unknown to pyplot.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'causalvae_fast[plots]'") from error
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write `figure` as a PNG, in a folder that is made if need be, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI)
    return path


def as_array(value: Any) -> np.ndarray:
    """A NumPy array from an array, a list, or a tensor on any device."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
