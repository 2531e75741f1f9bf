"""What the frames of a sprite video become when a latent is set to values (figure 6 of the paper)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from causalvae_fast.data import SpriteVideos
from causalvae_fast.figures.image_grid import draw_image_grid
from causalvae_fast.models.video_vae import VideoVAE

_VALUES = 5  # that a latent is set to
_REACH = 2.0  # standard deviations of the latent, over the posteriors of all frames
_COLOURS = torch.tensor([[1.0, 0.15, 0.1], [1.0, 1.0, 1.0], [0.1, 0.9, 0.25]])  # from the first frame to the last
_ENLARGED = 6  # screen pixels for each pixel, so that edges stay sharp
_DIM = 0.3  # of the background
_HIDES = 0.75  # how much of what is behind it a character hides, so that all frames are seen


@torch.no_grad()
def draw_sprite_interventions(model: VideoVAE, videos: SpriteVideos, path: Path) -> Path:
    """Draw a video under interventions: each latent of each frame is set to values, a row for each.

    The frames of a video stand over one another on the dimmed background, red for the first, white in the middle
    and green for the last. To be seen: which frames a latent moves the character in. The video is the one whose
    character is closest to the middle of the frame.

    Args:
        model: a trained one.
        videos: (N, T >= frames).
        path: of the PNG to write.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    frames, k = model.config.frames, model.config.latents
    middle = (videos.frames.shape[2] - 1) / 2
    shown = int((videos.positions[:, :frames] - middle).norm(dim=-1).amax(1).argmin())
    background = videos.background[[shown]].float() / 255
    q = model.encode(videos.frames[:, :frames])
    z = q.mean[[shown]].expand(_VALUES, -1)
    each = q.mean.unflatten(1, (frames, k)).flatten(0, 1)
    spread = (each.var(0, correction=0) + q.variance.unflatten(1, (frames, k)).mean((0, 1))).sqrt()  # (k,)
    steps = torch.linspace(-_REACH, _REACH, _VALUES)
    rows, labels = [], []
    for t in range(frames):
        for latent in range(k):
            values = each[:, latent].mean() + steps * spread[latent]
            changed = model.intervened(z, {t * k + latent: values}, redraw=False)
            decoded = model.decode(changed, background.expand(_VALUES, -1, -1, -1))
            rows.append(superimpose(decoded, background[0]))
            labels.append(f"$z_{{{t + 1},{latent + 1}}}$")
    images = torch.stack(rows).repeat_interleave(_ENLARGED, 2).repeat_interleave(_ENLARGED, 3)
    return draw_image_grid(
        images,
        labels,
        [f"{step:+.0f} sd" if abs(step) > 1e-6 else "mean" for step in steps.tolist()],
        path,
        caption="one latent set; frames red, white, green in time",
        group=k,
    )


def superimpose(frames: Tensor, background: Tensor) -> Tensor:
    """The frames (..., T, H, W, 3) of videos over one another, tinted by time, (..., H, W, 3) in [0, 1].

    What differs from the background (H, W, 3) is taken for the character.
    """
    tints = _tints(frames.shape[-4])
    grey = background.mean(-1, keepdim=True).expand_as(background)
    picture = (_DIM * grey).expand(*frames.shape[:-4], *background.shape)
    for t, tint in enumerate(tints):
        frame = frames[..., t, :, :, :]
        cover = ((frame - background).abs().amax(-1, keepdim=True) * 3).clamp(max=1)
        light = frame.mean(-1, keepdim=True)
        picture = torch.lerp(picture, (0.35 + 0.65 * light) * tint, _HIDES * cover)
    return picture


def _tints(frames: int) -> Tensor:
    """(frames, 3) from red over white to green."""
    at = torch.linspace(0, len(_COLOURS) - 1, frames) if frames > 1 else torch.zeros(1)
    low = at.floor().long().clamp(max=len(_COLOURS) - 2)
    return torch.lerp(_COLOURS[low], _COLOURS[low + 1], (at - low)[:, None])
