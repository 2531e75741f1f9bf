"""The user's own videos: windows to train on, videos that are held out, and backgrounds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from causalvae_fast.data.files import DataError, open_frames
from causalvae_fast.data.survey import survey

_FRAMES_OF_A_MEDIAN = 101  # odd, so that the median of bytes is one of them
_FRAMES_OF_A_VARIANCE = 2000


class Segment(NamedTuple):
    """Successive frames of a video."""

    video: int
    first: int  # number of its first frame, over all videos
    length: int


class UserVideos(Dataset[Tensor]):
    """Videos in a NumPy file or in folders, cut into windows of `frames` frames; some videos are held out.

    All frames are read once to be checked; after that, those of a file only as they are asked for. What is held
    out are whole videos, drawn at random; of a single video, its end.

    Args:
        path: see `open_frames`.
        frames: of a window, at least 2.
        held_out: fraction of the videos, or of the single video's frames, that is not trained on, above 0 and
            below 1; at least one video, or window.
        seed: of the choice of these videos.
        background: compute each video's background, the median of its frames.

    Attributes:
        segments: what is trained on, `len(self)` windows in all.
        held_out: what is not.
        survey: what the check found.
        variance: squared distance of a frame from its background, or from the mean frame where there are no
            backgrounds, summed over pixels and colours, the mean over frames.
        backgrounds: (V, H, W, C) of all V videos, uint8 or float32, or None.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        DataError: if what is there cannot be used; the message names the file and the remedy.
    """

    def __init__(
        self,
        path: str | Path,
        frames: int = 3,
        *,
        held_out: float = 0.1,
        seed: int = 0,
        background: bool = False,
    ) -> None:
        self.frames = frames
        self._frames = open_frames(Path(path), "video")
        self._check_lengths()
        self.survey = survey(self._frames)
        self.segments, self.held_out = self._split(held_out, seed)
        self._starts = np.concatenate([s.first + np.arange(s.length - frames + 1) for s in self.segments])
        self._videos = np.repeat([s.video for s in self.segments], [s.length - frames + 1 for s in self.segments])
        self.backgrounds = self._medians() if background else None
        self.variance = self.survey.variance if self.backgrounds is None else self._variance()

    def _check_lengths(self) -> None:
        lengths, frames = self._frames.lengths, self.frames
        short = [(video, length) for video, length in enumerate(lengths) if length < frames]
        if short:
            video, length = short[0]
            remedy = "use train images" if max(lengths) < 2 else "give more frames, remove it, or lower --frames"
            count = "one frame" if length == 1 else f"{length} frames"
            raise DataError(
                f"{self._frames.name_of_video(video)} has {count}, but windows of {frames} are asked for: {remedy}"
            )
        if len(lengths) == 1 and lengths[0] < 2 * frames:
            raise DataError(
                f"{self._frames.name_of_video(0)} is the only video and has {lengths[0]} frames: to train on some "
                f"and hold others out, give more videos, or at least {2 * frames} frames"
            )

    def _split(self, held_out: float, seed: int) -> tuple[list[Segment], list[Segment]]:
        lengths, frames = self._frames.lengths, self.frames
        starts = np.cumsum((0, *lengths[:-1])).tolist()
        if len(lengths) == 1:
            total = lengths[0]
            cut = total - min(max(frames, round(held_out * total)), total - frames)
            return [Segment(0, 0, cut)], [Segment(0, cut, total - cut)]
        apart = min(max(1, round(held_out * len(lengths))), len(lengths) - 1)
        shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
        parts = (shuffled[apart:].sort().values.tolist(), shuffled[:apart].sort().values.tolist())
        train, rest = ([Segment(video, starts[video], lengths[video]) for video in part] for part in parts)
        return train, rest

    def _medians(self) -> Tensor:
        begin, medians = 0, []
        for length in self._frames.lengths:
            count = min(length, _FRAMES_OF_A_MEDIAN)
            chosen = begin + np.linspace(0, length - 1, count).astype(np.intp)
            medians.append(median_background(self._frames.read(chosen)))
            begin += length
        return torch.stack(medians)

    def _variance(self) -> float:
        assert self.backgrounds is not None
        total = len(self._frames)
        index = np.linspace(0, total - 1, min(total, _FRAMES_OF_A_VARIANCE)).astype(np.intp)
        videos = np.repeat(np.arange(len(self._frames.lengths)), self._frames.lengths)[index]
        squares = 0.0
        for chunk in np.array_split(np.arange(len(index)), -(-len(index) // 100)):
            frames = as_float(torch.from_numpy(self._frames.read(index[chunk])))
            squares += float((frames - as_float(self.backgrounds[videos[chunk]])).double().square().sum())
        return squares / len(index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a frame."""
        return self._frames.shape

    def __len__(self) -> int:
        """Windows to train on."""
        return len(self._starts)

    def windows(self, index: Tensor) -> Tensor:
        """The windows (n, frames, H, W, C) with these numbers (n,); uint8, or float32 in [0, 1]."""
        frames = self._starts[index.numpy()][:, None] + np.arange(self.frames)
        read = self._frames.read(frames.reshape(-1).astype(np.intp))
        return torch.from_numpy(read).unflatten(0, frames.shape)

    def backgrounds_of(self, index: Tensor) -> Tensor | None:
        """The backgrounds (n, H, W, C) of windows, or None where there are none."""
        return None if self.backgrounds is None else self.backgrounds[self._videos[index.numpy()]]

    def clip(self, segment: Segment, first: int = 0, length: int | None = None) -> Tensor:
        """Frames (length, H, W, C) of a segment, from the frame `first` of it, all if no length is given."""
        length = segment.length - first if length is None else length
        return torch.from_numpy(self._frames.read(segment.first + first + np.arange(length)))

    def held_out_windows(self, most: int) -> tuple[Tensor, Tensor | None]:
        """Windows (n, frames, H, W, C) that are not trained on, evenly chosen if there are more than `most`, and
        their backgrounds (n, H, W, C), if there are any.
        """
        places = [(s, start) for s in self.held_out for start in range(s.length - self.frames + 1)]
        chosen = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int).tolist()
        windows = torch.stack([self.clip(places[i][0], places[i][1], self.frames) for i in chosen])
        if self.backgrounds is None:
            return windows, None
        return windows, self.backgrounds[[places[i][0].video for i in chosen]]

    def __getitem__(self, index: int) -> Tensor:
        return self.windows(torch.tensor([index]))[0]


def median_background(frames: ArrayLike | Tensor) -> Tensor:
    """The median (H, W, C) of frames (T, H, W, C): what is seen in most of them, with a camera that stands still.

    Bytes give bytes.
    """
    array = np.asarray(frames)
    median = np.median(array, axis=0)
    return torch.from_numpy(np.rint(median).astype(np.uint8) if array.dtype == np.uint8 else median)


def as_float(frames: Tensor) -> Tensor:
    """Frames, uint8 or float, as floats in [0, 1]."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames
