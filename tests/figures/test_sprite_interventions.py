"""Interventions on a sprite model, frames over one another in the colours of time."""

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from causalvae_fast.data import make_sprites
from causalvae_fast.figures.sprite_interventions import draw_sprite_interventions, superimpose
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig


def test_frames_are_red_white_and_green_where_something_is() -> None:
    background = torch.full((9, 9, 3), 0.2)
    frames = background.repeat(3, 1, 1, 1)
    for t in range(3):
        frames[t, 3 * t : 3 * t + 2, 4] = 1.0
    picture = superimpose(frames, background)
    red, white, green = (picture[3 * t, 4] for t in range(3))
    assert red[0] > 2 * red[1:].max()
    assert green[1] > 2 * green[[0, 2]].max()
    assert white.min() > 0.7
    torch.testing.assert_close(picture[0, 0], torch.full((3,), 0.06))  # nothing there: the background, dimmed


def test_a_batch_is_each_of_its_videos() -> None:
    frames, background = torch.rand(2, 5, 3, 8, 8, 3), torch.rand(8, 8, 3)
    torch.testing.assert_close(superimpose(frames, background)[1, 2], superimpose(frames[1, 2], background))


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_a_row_for_each_latent_of_each_frame(frames: int, tmp_path: Path) -> None:
    model = VideoVAE(VideoVAEConfig(frames=frames, latents=2, channels=2, hidden=16)).eval()
    videos = make_sprites(20, frames + 1)
    path = draw_sprite_interventions(model, videos, tmp_path / "interventions.png")
    other = VideoVAE(VideoVAEConfig(frames=frames, latents=3, channels=2, hidden=16)).eval()
    more = draw_sprite_interventions(other, videos, tmp_path / "more.png")
    assert imread(more).shape[0] > imread(path).shape[0]
    assert imread(more).shape[1] == imread(path).shape[1]
