"""The first principal component of blurred images: a first guess of the latent that has no parents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_CELLS = 16  # a side, to which images are shrunk
_BLUR = 2.0  # standard deviation, in cells


class FirstComponent:
    """Score of images on the first principal component of blurred ones, with mean 0 and standard deviation 1.

    Sharp images of an object at two places share no pixels, and their components are waves in its position.
    Blurred by an eighth of the image, they depend on the position almost linearly, and the direction in which the
    object moves most comes first. Nothing is drawn at random.

    Args:
        images: (N, H, W) that the component is computed from, uint8; at least two, not all alike.

    Raises:
        ValueError: if there are fewer, or nothing in which they differ.
    """

    def __init__(self, images: Tensor) -> None:
        if len(images) < 2:
            raise ValueError(f"images must be at least two, got {len(images)}: one has no direction to differ in")
        blurred = _blur(_shrink(images))
        centred = blurred - blurred.mean(0)
        if centred.abs().max() <= 1e-6 * blurred.abs().max():  # what rounding leaves of images that are alike
            raise ValueError(f"images must differ from one another, but all {len(images)} are alike")
        _, vectors = torch.linalg.eigh(centred.flatten(1).T @ centred.flatten(1))
        direction = vectors[:, -1].view(_CELLS, _CELLS)
        score = (blurred * direction).sum((1, 2))
        self.mean, self.std = score.mean(), score.std()
        self.direction = direction

    def __call__(self, images: Tensor) -> Tensor:
        """(N,) for images (N, H, W)."""
        direction, mean, std = (t.to(images.device) for t in (self.direction, self.mean, self.std))
        return ((_blur(_shrink(images)) * direction).sum((1, 2)) - mean) / std


def _shrink(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.unsqueeze(1).float() / 255, _CELLS).squeeze(1)


def _blur(images: Tensor) -> Tensor:
    cell = torch.arange(_CELLS, device=images.device)
    kernel = torch.exp(-((cell - cell.unsqueeze(1)) / _BLUR).square() / 2)  # (to, from)
    return kernel @ images @ kernel.T
