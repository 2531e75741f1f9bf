"""Peak signal-to-noise ratio."""

import torch
from torch import Tensor

from causalvae_fast.metrics._checks import check_images


def psnr(reconstruction: Tensor, target: Tensor, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, 10 log10(data_range^2 / MSE).

    Args:
        reconstruction: (N, ...), any number of pixel dimensions; float, or uint8.
        target: (N, ...), with the same shape, dtype and range.
        data_range: distance between the least and the greatest value that a pixel can have, above 0. By
            default 255 for uint8 and 1 for floats.

    Returns:
        (N,) float64. Infinite where a reconstruction is exact; 20 dB is an error of a tenth of the range.

    Raises:
        TypeError: if one is no tensor, or the dtypes differ.
        ValueError: if the shapes differ, there are no pixels, or `data_range` is not above 0.

    >>> psnr(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.4)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    check_images(reconstruction, target)
    if data_range is None:
        data_range = 255.0 if target.dtype == torch.uint8 else 1.0
    if not data_range > 0:
        raise ValueError(f"data_range must be above 0, got {data_range}")
    error = reconstruction.detach().double() - target.detach().double()
    mse = error.square().flatten(1).mean(1)  # (N,)
    return 10 * torch.log10(data_range**2 / mse)
