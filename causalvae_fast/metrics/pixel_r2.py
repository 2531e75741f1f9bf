"""How much of the variation between images a reconstruction explains."""

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_images


def pixel_r2(reconstruction: Tensor, target: Tensor) -> float:
    """Fraction of the pixel variance that the reconstruction explains, 1 - MSE / variance.

    The variance is that of each pixel over the batch, averaged over the pixels: what the best constant image,
    the mean of the targets, leaves unexplained. What all images have in common earns nothing.

    Args:
        reconstruction: (N, ...), any number of pixel dimensions; float, or uint8.
        target: (N, ...), with the same shape, dtype and range.

    Returns:
        At most 1, for a perfect reconstruction. 0 is as good as the mean image, negative is worse. NaN if all
        targets are equal.

    Raises:
        TypeError: if one is no tensor, or the dtypes differ.
        ValueError: if the shapes differ or there are no pixels.
    """
    check_images(reconstruction, target)
    x, y = reconstruction.detach().double(), target.detach().double()
    if bool((y == y[:1]).all()):
        return float("nan")
    return float(1 - (x - y).square().mean() / torch.var(y, dim=0, correction=0).mean())
