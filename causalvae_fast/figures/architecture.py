"""The architecture of a model: its layers, latents and prior (figures 8 and 9 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from causalvae_fast.figures import _canvas
from causalvae_fast.mechanisms import LinearMechanism, MLPMechanism, NormalizedMechanism, QuadraticMechanism
from causalvae_fast.mechanisms.base import Mechanism
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.networks import Crop, FromPixels, ToPixels
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.prior import SEMPrior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In inches, the unit of the axes.
_WIDTH, _HEIGHT = 3.0, 0.44  # of a box
_BELOW, _GUTTER = 0.2, 0.45  # between boxes of a column, and between columns
_MARGIN, _HEADER = 0.2, 0.42
_DATA, _LATENT = "#F2F2F2", "#E3EEF6"  # what boxes are filled with that are no layers
_AXES = "rows x columns x colours"

_ACTIVATIONS = (nn.LeakyReLU, nn.Sigmoid)
_UNSEEN = (FromPixels, ToPixels)  # what they do is seen from the boxes around them


@dataclass
class Box:
    """A layer with its activation, or what goes in or comes out."""

    text: str
    shape: str
    """Of its output, for one frame or image: channels x rows x columns, or a number of units."""
    detail: str = ""
    """A second, smaller line."""
    colour: str = "white"


@dataclass
class Column:
    """Boxes from above to below, each joined to the next by an arrow; one of several in a row is a list."""

    title: str
    parameters: int
    rows: list[list[Box]]
    upwards_from: int = 100
    """From this row on, arrows point to the row above."""


def describe(model: VideoVAE | ImageVAE) -> dict[str, Column]:
    """The columns `encoder`, `prior`, `decoder`, and `background` if the decoder is given one.

    Read from the modules of the model, with a frame or image of zeros sent through them.
    """
    with torch.no_grad():
        return _video_columns(model) if isinstance(model, VideoVAE) else _image_columns(model)


def _video_columns(model: VideoVAE) -> dict[str, Column]:
    c, zeros = model.config, model.prior.log_sigma.new_zeros
    height, width, colours = c.frame
    columns = {
        "encoder": _encoder_column(model, "frame", c.frame, zeros(1, colours, height, width)),
        "prior": _prior_column(model, f"{c.posterior} covariance; {c.frames} frames of {c.latents}"),
    }
    rows = [[Box("z", f"{c.latents}", "of each frame, and f(z) in place of the last", _LATENT)]]
    start, z = _layers([model.decoder_start], zeros(1, c.latents))
    rows.append(start)
    if c.background:
        inside, code = _layers([model.encode_background], zeros(1, height * width * colours))
        background = Box("background", _size(c.frame), _AXES, _DATA)
        columns["background"] = Column(
            "Encoder of the background",
            _count(model.encode_background),
            [[background], *([box] for box in inside)],
        )
        z = torch.cat([z, code], 1)
        rows.append([Box("joined with the background's code", f"{z.shape[1]}")])
    rows += [[box] for box in _layers([model.decoder], z)[0]]
    if c.background:
        rows.append([Box("picture and opacity", _size((height, width, colours + 1)), "sigmoid")])
        rows.append([Box("frame", _size(c.frame), "the picture, blended over the background", _DATA)])
    else:
        rows.append([Box("frame", _size(c.frame), "sigmoid", _DATA)])
    columns["decoder"] = Column("Decoder", _count(model.decoder_start, model.decoder), rows)
    return columns


def _image_columns(model: ImageVAE) -> dict[str, Column]:
    c, zeros = model.config, model.prior.log_sigma.new_zeros
    pixels = zeros(1, c.image[0] * c.image[1] * c.image[2])
    rows = [
        [Box("z", f"{c.latents}", "a sample of the posterior", _LATENT)],
        *([box] for box in _layers([model.decoder], zeros(1, c.latents))[0]),
        [Box("image", _size(c.image), _AXES, _DATA)],
    ]
    return {
        "encoder": _encoder_column(model, "image", c.image, pixels),
        "prior": _prior_column(model, f"{c.posterior} covariance"),
        "decoder": Column("Decoder", _count(model.decoder), rows),
    }


def _encoder_column(model: VideoVAE | ImageVAE, name: str, size: tuple[int, int, int], x: Tensor) -> Column:
    """`x` (1, ...) is what the encoder takes."""
    boxes, features = _layers([model.encoder], x)
    full = model.config.posterior == "full"
    spread: nn.Module = model.to_scale_tril if full else model.to_log_scale
    mean, scale = (_layers([head], features)[0][0] for head in (model.to_loc, spread))
    mean.detail = f"mean; {mean.detail}"
    scale.detail = "factor of covariance" if full else "log std. deviation"
    rows = [[Box(name, _size(size), _AXES, _DATA)], *([box] for box in boxes), [mean, scale]]
    return Column(f"Encoder of each {name}", _count(model.encoder, model.to_loc, spread), rows)


def _prior_column(model: VideoVAE | ImageVAE, posterior: str) -> Column:
    """The posterior of all latents, and what it is compared with."""
    prior = model.prior
    d, exact = prior.mechanism.d, isinstance(prior.mechanism, LinearMechanism)
    edges = int(prior.mechanism.allowed.sum())
    gates = "the graph is given" if prior.edges is None else "each with a Gumbel-softmax gate"
    rows = [
        [Box("posterior, Gaussian", f"{d}", posterior, _LATENT)],
        [Box("KL divergence from the prior", "1", "closed form" if exact else "closed form, f linearised")],
        [Box("prior: z = f(z) + n", f"{d}", _mechanism_text(prior.mechanism), _LATENT)],
        [Box("possible edges", f"{edges}", gates)],
        [Box("noise n, Gaussian", f"{d}", _noise_text(prior))],
    ]
    return Column("Latents and prior", _count(prior), rows, upwards_from=2)


def draw_architecture(model: VideoVAE | ImageVAE, path: str | Path) -> Path:
    """Draw encoder, prior and decoder as they are in the model: layers, sizes, activations.

    Args:
        model: trained or not.
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    columns = describe(model)
    shown = [columns[name] for name in ("encoder", "prior", "decoder", "background") if name in columns]
    rows = max(len(column.rows) for column in shown)
    width = 2 * _MARGIN + len(shown) * _WIDTH + (len(shown) - 1) * _GUTTER
    height = 2 * _MARGIN + _HEADER + rows * (_HEIGHT + _BELOW) - _BELOW
    figure = _canvas.new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    top = height - _MARGIN - _HEADER
    lefts = [_MARGIN + n * (_WIDTH + _GUTTER) for n in range(len(shown))]
    for left, column in zip(lefts, shown, strict=True):
        axes.text(left, height - _MARGIN, column.title, size=11, weight="bold", color=_canvas.INK, va="top")
        number = f"{column.parameters:,} parameters"
        axes.text(left, height - _MARGIN - 0.2, number, size=8, color=_canvas.GREY, va="top")
        for row, boxes in enumerate(column.rows):
            _draw_row(axes, left, _row_top(top, row), boxes)
            if row >= column.upwards_from:
                _arrow(axes, (left + _WIDTH / 2, _row_top(top, row)), (0, _BELOW))
            elif row > 0:
                _arrow(axes, (left + _WIDTH / 2, _row_top(top, row - 1) - _HEIGHT), (0, -_BELOW))
    middle = [left + _WIDTH + _GUTTER / 2 for left in lefts]
    heads = len(columns["encoder"].rows) - 1
    _elbow(axes, lefts[0] + _WIDTH, _centre(top, heads), middle[0], _centre(top, 0), lefts[1])
    _elbow(axes, lefts[1] + _WIDTH, _centre(top, 0), middle[1], _centre(top, 0), lefts[2])
    if "background" in columns:
        joined = next(n for n, row in enumerate(columns["decoder"].rows) if row[0].text.startswith("joined"))
        code = len(columns["background"].rows) - 1
        _elbow(axes, lefts[3], _centre(top, code), middle[2], _centre(top, joined), lefts[2] + _WIDTH)
    return _canvas.save(figure, path)


def _mechanism_text(mechanism: Mechanism) -> str:
    if isinstance(mechanism, NormalizedMechanism):
        return f"{_mechanism_text(mechanism.mechanism)}, normalised"
    if isinstance(mechanism, LinearMechanism):
        return "f(z) = A z + b"
    if isinstance(mechanism, MLPMechanism):
        return f"a network with {mechanism.hidden} {mechanism.activation} units a node"
    if isinstance(mechanism, QuadraticMechanism) and mechanism.linear is None:
        edges = mechanism.allowed.nonzero().tolist()
        return ", ".join(f"$f_{{{i + 1}}} = z_{{{j + 1}}}^2$" for i, j in edges) or "f = 0: isotropic"
    return type(mechanism).__name__


def _noise_text(prior: SEMPrior) -> str:
    if isinstance(prior.log_sigma, nn.Parameter):
        return "standard deviations, learned"
    values = [f"{value:.3g}" for value in prior.log_sigma.exp().tolist()]
    return f"standard deviation {values[0] if len(set(values)) == 1 else ', '.join(values)}"


def _layers(modules: list[nn.Module], x: Tensor) -> tuple[list[Box], Tensor]:
    """The boxes of modules that follow one another, and what becomes of the input x (1, ...)."""
    boxes: list[Box] = []
    leaves = [
        leaf for module in modules for leaf in (_leaves(module) if isinstance(module, nn.Sequential) else [module])
    ]
    for leaf in leaves:
        x = leaf(x)
        if isinstance(leaf, _ACTIVATIONS) and boxes:
            boxes[-1].detail = ", ".join(filter(None, (boxes[-1].detail, _text(leaf))))
        elif isinstance(leaf, Crop):
            boxes[-1].shape = _size(x.shape[1:])
        elif not isinstance(leaf, _UNSEEN):
            stride = leaf.stride[0] if isinstance(leaf, nn.Conv2d | nn.ConvTranspose2d) else 1
            boxes.append(Box(_text(leaf), _size(x.shape[1:]), f"stride {stride}" if stride != 1 else ""))
    return boxes, x


def _leaves(module: nn.Sequential) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module:
        found += _leaves(child) if isinstance(child, nn.Sequential) else [child]
    return found


def _text(layer: nn.Module) -> str:
    if isinstance(layer, nn.LeakyReLU):
        return f"leaky ReLU {layer.negative_slope:g}"
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        rows, columns = layer.kernel_size
        return f"{'transposed ' if layer.transposed else ''}conv {rows} x {columns}"
    known = {nn.Linear: "linear", nn.Sigmoid: "sigmoid", nn.Flatten: "flattened", nn.Unflatten: "reshaped"}
    return known.get(type(layer), type(layer).__name__)


def _size(numbers: Sequence[int]) -> str:
    return " x ".join(str(number) for number in numbers)


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _row_top(top: float, row: int) -> float:
    return top - row * (_HEIGHT + _BELOW)


def _centre(top: float, row: int) -> float:
    return _row_top(top, row) - _HEIGHT / 2


def _draw_row(axes: Axes, left: float, top: float, boxes: list[Box]) -> None:
    """Boxes side by side, in the width of a column."""
    from matplotlib.patches import FancyBboxPatch

    gap = 0.08
    width = (_WIDTH - gap * (len(boxes) - 1)) / len(boxes)
    for n, box in enumerate(boxes):
        x = left + n * (width + gap)
        style = "round,pad=0,rounding_size=0.05"
        axes.add_patch(
            FancyBboxPatch(
                (x, top - _HEIGHT),
                width,
                _HEIGHT,
                boxstyle=style,
                facecolor=box.colour,
                edgecolor=_canvas.INK,
                linewidth=0.8,
            )
        )
        middle = top - _HEIGHT / 2
        axes.text(
            x + 0.08,
            middle + (0.085 if box.detail else 0),
            _times(box.text),
            size=9,
            color=_canvas.INK,
            va="center_baseline",
        )
        axes.text(
            x + width - 0.08,
            middle + (0.085 if box.detail else 0),
            _times(box.shape),
            size=9,
            color=_canvas.BLUE,
            va="center_baseline",
            ha="right",
        )
        if box.detail:
            axes.text(x + 0.08, middle - 0.1, _times(box.detail), size=7.5, color="#595959", va="center_baseline")


def _times(text: str) -> str:
    return text.replace(" x ", " \N{MULTIPLICATION SIGN} ")


def _arrow(axes: Axes, start: tuple[float, float], by: tuple[float, float]) -> None:
    end = (start[0] + by[0], start[1] + by[1])
    axes.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "-|>", "color": _canvas.INK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0},
    )


def _elbow(axes: Axes, x0: float, y0: float, turn: float, y1: float, x1: float) -> None:
    """From the edge of a box into the gap between two columns, up or down in it, and to the other box."""
    axes.plot([x0, turn, turn], [y0, y0, y1], color=_canvas.INK, lw=0.9, solid_joinstyle="miter")
    _arrow(axes, (turn, y1), (x1 - turn, 0))
