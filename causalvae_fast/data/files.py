"""The user's own frames: a NumPy file, mapped into memory, or folders of image files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from causalvae_fast.data.images import SUFFIXES

Kind = Literal["images", "video"]

_HELD_BYTES = 2**30  # decoded image files are held in memory up to this size, and decoded again and again above
_LEAST_SIDE = 4  # pixels


class DataError(ValueError):
    """The user's data cannot be used; the message names the file and the remedy."""


class Frames(ABC):
    """N frames of one size, one after another: those of the first video, of the second, and so on.

    Attributes:
        shape: (H, W, C) of a frame.
        lengths: frames in each video; images are videos of one frame.
    """

    shape: tuple[int, int, int]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    @abstractmethod
    def read(self, index: np.ndarray) -> np.ndarray:
        """The frames (n, H, W, C) with these numbers (n,); uint8, or float32 that nobody has checked.

        Raises:
            DataError: if a file of theirs cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """What a frame is called in a message: its file, or its place in one."""

    @abstractmethod
    def name_of_video(self, video: int) -> str:
        """The same for a video."""


def open_frames(path: Path, kind: Kind) -> Frames:
    """Images or videos in a NumPy file or a folder.

    Args:
        path: of images: a file with an array (N, H, W) or (N, H, W, C), or a folder of image files. Of video: a
            file with (N, T, H, W) or (N, T, H, W, C), a folder of folders, each with the frames of one video, or a
            folder with the frames of the only one. C is 1, 3, or 4 where the fourth is opaque alpha. Files are in
            the order of their names, numbers in them by their value.
        kind: "images" or "video".

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        DataError: if what is there cannot be used.
        ImportError: if there are image files and Pillow is not installed.
    """
    if path.is_dir():
        return ImageFiles(_folders(path, kind), kind)
    if not path.exists():
        raise FileNotFoundError(f"there are no data at {path}: give a .npy file or a folder of images with --data")
    return ArrayFile(path, kind)


class ArrayFile(Frames):
    """Frames in a NumPy file, of which only those that are asked for are read."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(
                f"{path} is not a whole NumPy file ({error}): write one array of numbers with numpy.save, "
                "or give a folder of images"
            ) from error
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} holds several arrays: write the one of the {kind} with numpy.save as .npy")
        self._array = array
        leading = 1 if kind == "images" else 2
        self._check_dtype()
        self._check_shape(kind, leading)
        height, width = array.shape[leading : leading + 2]
        self._channels = array.shape[leading + 2] if array.ndim == leading + 3 else 1
        self._leading = array.shape[:leading]
        self.shape = (height, width, min(self._channels, 3))
        self.lengths = (1,) * array.shape[0] if kind == "images" else (array.shape[1],) * array.shape[0]

    def _check_dtype(self) -> None:
        dtype = self._array.dtype
        if not (dtype in (np.uint8, np.bool_) or np.issubdtype(dtype, np.floating)):
            raise DataError(
                f"{self.path} holds {dtype}: save uint8 from 0 to 255 (x.astype('uint8')), or float in [0, 1]"
            )

    def _check_shape(self, kind: Kind, leading: int) -> None:
        array, frame = self._array, "N, H, W" if kind == "images" else "N, T, H, W"
        expected = f"{self.path} must have shape ({frame}) or ({frame}, C), C 1, 3 or 4, but has {array.shape}"
        if array.ndim not in (leading + 2, leading + 3):
            remedy = f"add or remove dimensions, or use train {'video' if kind == 'images' else 'images'}"
            raise DataError(f"{expected}: {remedy}")
        if array.ndim == leading + 3 and array.shape[-1] not in (1, 3, 4):
            first = array.shape[leading] in (1, 3, 4)
            remedy = (
                f"put colours last, numpy.moveaxis(x, {leading}, -1)"
                if first
                else f"use {'train video, if the second dimension is time' if kind == 'images' else 'C = 1 or 3'}"
            )
            raise DataError(f"{expected}: {remedy}")
        if 0 in array.shape:
            raise DataError(f"{self.path} is empty, its shape is {array.shape}: write an array with frames in it")
        _check_sides(str(self.path), array.shape[leading + 1], array.shape[leading])

    def read(self, index: np.ndarray) -> np.ndarray:
        frames = self._array[np.unravel_index(index, self._leading)]
        frames = frames.reshape(len(index), *self.shape[:2], self._channels)
        if frames.dtype == np.bool_:
            return frames.astype(np.uint8) * 255
        if frames.dtype != np.uint8:
            frames = frames.astype(np.float32)
        if self._channels == 4:
            opaque = 255 if frames.dtype == np.uint8 else 1.0
            clear = (frames[..., 3] != opaque).any(axis=(1, 2))
            if clear.any():
                raise _transparent(self.name(int(index[clear.argmax()])))
            frames = frames[..., :3]
        return np.ascontiguousarray(frames)

    def name(self, index: int) -> str:
        place = ", ".join(str(i) for i in np.unravel_index(index, self._leading))
        return f"{self.path}[{place}]"

    def name_of_video(self, video: int) -> str:
        return f"{self.path}[{video}]"


class ImageFiles(Frames):
    """Frames in image files: grey if all of them are, else RGB."""

    def __init__(self, folders: Sequence[tuple[Path, list[Path]]], kind: Kind) -> None:
        self._folders = [folder for folder, _ in folders]
        self._paths = [path for _, paths in folders for path in paths]
        self.lengths = (1,) * len(self._paths) if kind == "images" else tuple(len(paths) for _, paths in folders)
        first, grey = None, True
        for path in self._paths:
            size, is_grey = _header(path)
            grey &= is_grey
            first = first or size
            if size != first:
                raise DataError(
                    f"{path} has {size[0]} x {size[1]} pixels (width x height), but {self._paths[0]} has "
                    f"{first[0]} x {first[1]}: resize or crop all images to one size, or remove it"
                )
        assert first is not None
        _check_sides(str(self._paths[0]), *first)
        self._mode = "L" if grey else "RGB"
        self.shape = (first[1], first[0], 1 if grey else 3)
        self._held: np.ndarray | None = None
        if len(self._paths) * int(np.prod(self.shape)) <= _HELD_BYTES:
            self._held = self._decode(self._paths)

    def read(self, index: np.ndarray) -> np.ndarray:
        if self._held is not None:
            return self._held[index]
        return self._decode([self._paths[i] for i in index])

    def _decode(self, paths: Sequence[Path]) -> np.ndarray:
        frames = np.empty((len(paths), *self.shape), dtype=np.uint8)
        for frame, path in zip(frames, paths, strict=True):
            frame[...] = _decode(path, self._mode).reshape(self.shape)
        return frames

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def name_of_video(self, video: int) -> str:
        return str(self._folders[video])


def _folders(path: Path, kind: Kind) -> list[tuple[Path, list[Path]]]:
    """The folders with image files, and these, in order."""
    direct = _images_in(path)
    below = [(f, _images_in(f)) for f in sorted(path.iterdir(), key=_natural) if _is_shown(f) and f.is_dir()]
    below = [(folder, images) for folder, images in below if images]
    if direct and (kind == "images" or not below):
        return [(path, direct)]
    if kind == "images" and below:
        raise DataError(
            f"{path} holds folders of images, as {below[0][0].name}: put the images into one folder, "
            "or, if each is a video, use train video"
        )
    if direct:
        raise DataError(
            f"{path} holds images, as {direct[0].name}, beside folders of images: give each video a folder "
            "of its own"
        )
    if not below:
        raise DataError(f"{path} holds no images: put files in it that end in {', '.join(SUFFIXES)}")
    return below


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.iterdir() if _is_shown(p) and p.suffix.lower() in SUFFIXES and p.is_file()),
        key=_natural,
    )


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """A key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _check_sides(name: str, width: int, height: int) -> None:
    if min(width, height) < _LEAST_SIDE:
        raise DataError(
            f"{name} has {width} x {height} pixels (width x height): at least {_LEAST_SIDE} a side are needed"
        )


def _transparent(name: str) -> DataError:
    return DataError(
        f"{name} is transparent in places, and nothing says over what: flatten the images over a background"
    )


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """Size (width, height) of an image file, and whether it is grey, without decoding it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'causalvae_fast[train]'") from error
    try:
        with Image.open(path) as image:
            size, mode, moving = image.size, image.mode, getattr(image, "is_animated", False)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, error) from error
    if moving:
        raise DataError(f"{path} holds several images: write each of them to a file, a folder for each video")
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
        raise DataError(
            f"{path} has pixels of mode {mode}, not 8 bits: convert the images to 8 bits, or save them as float "
            "in [0, 1] with numpy.save"
        )
    return size, mode in ("1", "L", "LA", "La")


def _decode(path: Path, mode: str) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise _transparent(str(path))
            return np.asarray(image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable image ({error}): mend it, or remove it from the folder")
