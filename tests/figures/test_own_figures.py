"""The drawing of image grids and of latents over time."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from causalvae_fast.figures.image_grid import draw_image_grid
from causalvae_fast.figures.latent_tracks import draw_latent_tracks


def read(path: Path) -> np.ndarray:
    return np.round(255 * imread(path)[..., :3]).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_cell_has_its_colour_and_place(tmp_path: Path, channels: int) -> None:
    shades = np.array([[10, 60, 110], [35, 85, 135]], dtype=np.uint8)
    images = np.broadcast_to(shades[..., None, None, None], (2, 3, 5, 10, channels)).copy()
    picture = read(draw_image_grid(images, ["a", "b"], ["1", "2", "3"], tmp_path / "new" / "g.png", caption="all"))
    centres = {s: [v.mean() for v in np.nonzero((picture == s).all(-1))] for s in shades.ravel().tolist()}
    for row in range(2):
        assert centres[shades[row, 0]][1] < centres[shades[row, 1]][1] < centres[shades[row, 2]][1]
    assert centres[10][0] < centres[35][0]
    cell = (picture == 60).all(-1)  # and a few pixels of letters
    wide, high = (np.count_nonzero(cell.sum(axis) > 20) for axis in (0, 1))
    assert wide == pytest.approx(2 * high, rel=0.05)  # as the images


def test_grids_name_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(R, S, H, W, C\)"):
        draw_image_grid(np.zeros((2, 3, 5, 5)), ["a", "b"], [], tmp_path / "g.png")
    with pytest.raises(ValueError, match="a label for each of 2 rows and 3 columns, got 1 and 0"):
        draw_image_grid(np.zeros((2, 3, 5, 5, 1)), ["a"], [], tmp_path / "g.png")


def test_tracks_are_drawn_with_gaps(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(20, 3))
    predicted = z + 0.1
    predicted[:2] = np.nan
    path = draw_latent_tracks(z, np.full_like(z, 0.1), predicted, tmp_path / "t.png")
    with_dots, blue = read(path), np.array([0, 114, 178])
    assert (with_dots == blue).all(-1).sum() > 100
    without = read(draw_latent_tracks(z, np.full_like(z, 0.1), np.full_like(z, np.nan), tmp_path / "t.png"))
    vermillion = np.array([213, 94, 0])
    assert (with_dots == vermillion).all(-1).sum() > 2 * (without == vermillion).all(-1).sum()


def test_tracks_name_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"spreads must have the shape of means, \(5, 2\)"):
        draw_latent_tracks(np.zeros((5, 2)), np.zeros((5, 1)), np.zeros((5, 2)), tmp_path / "t.png")
