"""Where a sprite model puts the character, in pixels: when it extrapolates, and under interventions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from causalvae_fast.data import SpriteVideos
from causalvae_fast.data.character_position import in_view, locate_character, videos_in_view
from causalvae_fast.graph.interventions import Do
from causalvae_fast.models.video_vae import VideoVAE

EXTRAPOLATED = 3  # frames
_MOVED = 2.0  # pixels
_EXTRAPOLATED_VIDEOS, _MOVED_VIDEOS = 100, 25  # in which the character is searched for, a millisecond a frame


class PositionReader:
    """The linear map from the latents that carry the position to pixels, fitted by least squares.

    Args:
        carriers: the numbers of the latents of a frame that carry the position.
        z: (N, T, k), the means of the latents of all frames.
        positions: (N, T, 2), in pixels.
    """

    def __init__(self, carriers: list[int], z: Tensor, positions: Tensor) -> None:
        self.carriers = carriers
        x, y = z[..., carriers].flatten(0, 1).double(), positions.flatten(0, 1).double()
        self._z_mean, self._mean = x.mean(0), y.mean(0)
        # gelsd takes latents that do not vary, too.
        self._map = torch.linalg.lstsq(x - self._z_mean, y - self._mean, driver="gelsd").solution  # (2, 2)
        self._inverse = torch.linalg.pinv(self._map)

    def read(self, z: Tensor) -> Tensor:
        """(..., 2), the position in pixels that latents (..., k) of frames stand for."""
        return ((z[..., self.carriers].double() - self._z_mean) @ self._map + self._mean).to(z.dtype)

    def shift(self, pixels: Tensor) -> Tensor:
        """(..., 2), what to add to the carriers to move the character by so much (..., 2)."""
        return (pixels.double() @ self._inverse).to(pixels.dtype)


@torch.no_grad()
def extrapolation_errors(
    model: VideoVAE, videos: SpriteVideos, reader: PositionReader, character: Tensor
) -> dict[str, Any]:
    """Distance of the extrapolated positions from the true ones, after each of the frames that follow.

    The model sees frames - 1 frames. Scored are videos in which the character stays in view, since of what is not
    to be seen no picture tells the position.

    Args:
        model: a trained one.
        videos: (N, T), T >= frames.
        reader: of its latents.
        character: RGBA (h, w, 4).

    Returns:
        For each step, `step_1` and so on, mean distances in pixels: `latents_px` by the extrapolated latents,
        `picture_px` by what is to be seen in the decoded frames. Empty if no video stays in view.
    """
    past, k = model.config.frames - 1, model.config.latents
    chosen = videos_in_view(videos.positions)[:_EXTRAPOLATED_VIDEOS]
    if len(chosen) == 0:
        return {}
    background, truth = videos.background[chosen].float() / 255, videos.positions[chosen]
    z = model.encode(videos.frames[chosen, :past]).mean
    later = model.prior.extrapolate(z, truth.shape[1] - past, latents=k)
    read = reader.read(later.unflatten(1, (-1, k)))
    seen = _locate(model.decode(later, background), background, character)
    return {
        f"step_{step + 1}": {
            "latents_px": _distance(read[:, step], truth[:, past + step]),
            "picture_px": _distance(seen[:, step], truth[:, past + step]),
        }
        for step in range(truth.shape[1] - past)
    }


@torch.no_grad()
def intervention_errors(
    model: VideoVAE, videos: SpriteVideos, reader: PositionReader, character: Tensor
) -> dict[str, Any]:
    """How far from where it should be the character is in each frame when it is moved in one of them.

    Both latents that carry the position in frame t are set so that the character is 2 pixels further on one axis.
    It should be there in frame t, where it was in all frames before, and where the linear motion takes it in those
    after; the positions of frames 1 and 2 are independent. Both axes and both directions are tried; scored are
    frames of videos in which the character would stay in view.

    Args:
        model: a trained one.
        videos: (N, T = frames).
        reader: of its latents.
        character: RGBA (h, w, 4).

    Returns:
        `set_in_frame_1` and so on, each with mean distances in pixels in the decoded frames, `frame_1_px` and so
        on. `others_px` is how far, in all frames, it moves when a latent that carries no position is set two
        standard deviations higher, in any of them. Empty if no video stays in view.
    """
    frames, k = model.config.frames, model.config.latents
    chosen = videos_in_view(videos.positions)[:_MOVED_VIDEOS]
    if len(chosen) == 0:
        return {}
    background, truth = videos.background[chosen].float() / 255, videos.positions[chosen]
    q = model.encode(videos.frames[chosen])
    z = q.mean

    def seen(do: Do) -> Tensor:
        return _locate(model.decode(model.intervened(z, do, redraw=False), background), background, character)

    errors: dict[str, Any] = {}
    for t in range(frames):
        offs: list[list[float]] = [[] for _ in range(frames)]
        for move in _MOVED * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]):
            shift = reader.shift(move)
            do: Do = {
                t * k + carrier: z[:, t * k + carrier] + shift[axis]
                for axis, carrier in enumerate(reader.carriers)
            }
            wanted = truth + _motion(t, frames)[:, None] * move
            off = (seen(do) - wanted).norm(dim=-1)
            stays = in_view(wanted).all(1)
            for frame in range(frames):
                offs[frame] += off[stays, frame].tolist()
        if not offs[0]:
            return {}
        errors[f"set_in_frame_{t + 1}"] = {f"frame_{i + 1}_px": sum(o) / len(o) for i, o in enumerate(offs)}
    spread = (z.var(0, correction=0) + q.variance.mean(0)).sqrt()
    others = [t * k + i for t in range(frames) for i in range(k) if i not in reader.carriers]
    if others:
        before = seen({})
        moved = [_distance(seen({node: z[:, node] + 2 * spread[node]}), before) for node in others]
        errors["others_px"] = sum(moved) / len(moved)
    return errors


def _motion(t: int, frames: int) -> Tensor:
    """(frames,), by how much the position of each frame changes when that of frame t changes by 1."""
    change = torch.zeros(frames)
    change[t] = 1
    for later in range(max(t + 1, 2), frames):
        change[later] = 2 * change[later - 1] - change[later - 2]
    return change


def _locate(frames: Tensor, background: Tensor, character: Tensor) -> Tensor:
    """(N, T, 2) in frames (N, T, H, W, 3) over backgrounds (N, H, W, 3)."""
    n, steps = frames.shape[:2]
    found = locate_character(frames.flatten(0, 1), background.repeat_interleave(steps, 0), character)
    return found.unflatten(0, (n, steps))


def _distance(a: Tensor, b: Tensor) -> float:
    return (a - b).norm(dim=-1).mean().item()
