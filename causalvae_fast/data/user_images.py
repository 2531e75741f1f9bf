"""The user's own images: which are trained on, and which are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from causalvae_fast.data.files import DataError, open_frames
from causalvae_fast.data.survey import survey


class UserImages(Dataset[Tensor]):
    """N images (H, W, C) in a NumPy file or a folder; a random part of them is held out.

    All are read once to be checked; after that, those of a file only as they are asked for.

    Args:
        path: see `open_frames`.
        held_out: fraction of the images that is not trained on, above 0 and below 1; at least one image is.
        seed: of the choice of these.

    Attributes:
        train, held_out: numbers (n,) of the images of either part, in ascending order.
        survey: what the check found.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        DataError: if what is there cannot be used; the message names the file and the remedy.
    """

    def __init__(self, path: str | Path, *, held_out: float = 0.1, seed: int = 0) -> None:
        self._frames = open_frames(Path(path), "images")
        count = len(self._frames)
        if count < 2:
            raise DataError(f"{path} holds one image: to train on some and hold others out, give thousands")
        self.survey = survey(self._frames)
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        apart = min(max(1, round(held_out * count)), count - 1)
        self.held_out, self.train = shuffled[:apart].sort().values, shuffled[apart:].sort().values

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self._frames.shape

    def __len__(self) -> int:
        return len(self._frames)

    def images(self, index: Tensor) -> Tensor:
        """The images (n, H, W, C) with these numbers (n,); uint8, or float32 in [0, 1]."""
        return torch.from_numpy(self._frames.read(index.numpy().astype(np.intp)))

    def __getitem__(self, index: int) -> Tensor:
        return self.images(torch.tensor([index]))[0]
