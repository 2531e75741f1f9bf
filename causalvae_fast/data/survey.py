"""One pass over the user's frames, before anything else: what cannot be used, and what the training must know."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from causalvae_fast.data.files import DataError, Frames

_CHUNK_BYTES = 2**24  # frames read at once


@dataclass(frozen=True)
class Survey:
    """What is to be known of frames (H, W, C)."""

    variance: float
    """Squared distance of a frame from the mean frame, summed over pixels and colours, the mean over frames."""
    fingerprint: str
    """Of all that was read: other data have another one."""
    note: str
    """What may be wrong although it can be trained on; empty if there is nothing."""


def survey(frames: Frames) -> Survey:
    """Read all frames, and check them.

    Raises:
        DataError: if a frame is not finite or not in [0, 1], if all are the same, or if in no video anything
    moves."""
    size = max(1, _CHUNK_BYTES // int(np.prod(frames.shape)))
    starts = np.cumsum((0, *frames.lengths[:-1]))
    is_video = max(frames.lengths) > 1
    first_of_video = np.repeat(starts, frames.lengths)  # (N,), the number of each frame's first
    total, squares = np.zeros(frames.shape), np.zeros(frames.shape)
    checksum = zlib.crc32(repr((frames.shape, frames.lengths)).encode())
    flat: list[int] = []  # frames of a single colour
    moves = np.zeros(len(frames), dtype=bool)  # whether a frame differs from the first of its video
    least, most = np.inf, -np.inf
    for begin in range(0, len(frames), size):
        index = np.arange(begin, min(begin + size, len(frames)))
        block = frames.read(index)
        _check_range(frames, index, block)
        least, most = min(least, block.min()), max(most, block.max())
        checksum = zlib.crc32(block.tobytes(), checksum)
        flat += index[(block == block[:, :1, :1]).all(axis=(1, 2, 3))].tolist()
        if is_video:
            firsts, place = np.unique(first_of_video[index], return_inverse=True)
            moves[index] = (block != frames.read(firsts)[place]).any(axis=(1, 2, 3))
        values = block.astype(np.float64) / (255 if block.dtype == np.uint8 else 1)
        total += values.sum(0)
        squares += np.square(values).sum(0)
    if most <= 1 and block.dtype == np.uint8 and most > least:
        raise DataError(f"{frames.name(0)} and all others hold 0 and 1 as uint8: save 255 * x, or x.astype(bool)")
    mean = total / len(frames)
    variance = float((squares / len(frames) - np.square(mean)).clip(0).sum())
    if variance < 1e-9:
        raise DataError(
            f"{frames.name(0)} and all others are the same image: there is nothing to learn; give data that vary"
        )
    still = ~np.logical_or.reduceat(moves, starts) if is_video else np.zeros(1, dtype=bool)
    if still.all():
        raise DataError(
            f"{frames.name_of_video(0)} and all other videos are still, every frame is as the first: "
            "give videos in which something moves, or use train images"
        )
    return Survey(variance, f"{checksum:08x}", _note(frames, flat, still))


def _note(frames: Frames, flat: list[int], still: np.ndarray) -> str:
    notes = []
    if flat:
        count = f"{len(flat)} of {len(frames)} frames are" if len(flat) > 1 else f"1 of {len(frames)} frames is"
        notes.append(f"note: {count} of a single colour, the first is {frames.name(flat[0])}")
    if still.any():
        first = frames.name_of_video(int(still.argmax()))
        notes.append(f"note: in {still.sum()} of {len(still)} videos nothing moves, the first is {first}")
    return "\n".join(notes)


def _check_range(frames: Frames, index: np.ndarray, block: np.ndarray) -> None:
    if block.dtype == np.uint8:
        return
    flat = block.reshape(len(block), -1)
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        bad = int(finite.argmin())
        kind = "NaN" if np.isnan(flat[bad]).any() else "infinite values"
        raise DataError(f"{frames.name(int(index[bad]))} holds {kind}: mend or remove that frame")
    low, high = flat.min(axis=1), flat.max(axis=1)
    outside = (low < 0) | (high > 1)
    if outside.any():
        bad = int(outside.argmax())
        if low.min() >= 0:
            remedy = "save x.astype('uint8') if they are bytes, or divide by the largest value"
        elif low.min() >= -1 and high.max() <= 1:
            remedy = "save (x + 1) / 2"
        else:
            remedy = "save (x - x.min()) / (x.max() - x.min())"
        raise DataError(
            f"{frames.name(int(index[bad]))} holds floats from {low[bad]:g} to {high[bad]:g}, which must lie in "
            f"[0, 1]: {remedy}"
        )
