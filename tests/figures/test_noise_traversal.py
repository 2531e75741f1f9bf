"""Traversals of the noise, side by side and over one another."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from causalvae_fast.figures.noise_traversal import draw_noise_grid, draw_noise_superimposed


def moving_square(steps: int = 5) -> np.ndarray:
    """(2, steps, 16, 16): it moves to the right in the first row, and stands still in the second."""
    images = np.zeros((2, steps, 16, 16))
    for step in range(steps):
        images[0, step, 6:10, 3 * step : 3 * step + 4] = 1
        images[1, step, 6:10, 6:10] = 1
    return images


def coloured(path: Path) -> np.ndarray:
    """Pixels (H, W) that are neither grey nor white."""
    pixels = imread(path)[..., :3]
    return np.asarray(np.ptp(pixels, axis=-1) > 0.2)


def test_a_grid_has_a_row_for_each_latent(tmp_path: Path) -> None:
    two = draw_noise_grid(moving_square(), [0, 1], 2.0, tmp_path / "two.png")
    one = draw_noise_grid(moving_square()[:1], [1], 2.0, tmp_path / "one.png")
    assert imread(two).shape[0] > imread(one).shape[0]
    assert imread(two).shape[1] == imread(one).shape[1]


def test_what_moves_leaves_a_coloured_path(tmp_path: Path) -> None:
    images = moving_square()
    moves = draw_noise_superimposed(images[:1], [0], 2.0, tmp_path / "moves.png")
    stands = draw_noise_superimposed(images[1:], [1], 2.0, tmp_path / "stands.png")
    assert coloured(moves).sum() > 1.5 * coloured(stands).sum()


@pytest.mark.parametrize("shape", [(2, 5, 16), (3, 5, 16, 16), (2, 0, 16, 16)])
def test_other_shapes_are_named(shape: tuple[int, ...], tmp_path: Path) -> None:
    for draw in (draw_noise_grid, draw_noise_superimposed):
        with pytest.raises(ValueError, match="images"):
            draw(np.zeros(shape), [0, 1], 2.0, tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
