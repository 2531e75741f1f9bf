"""Prior and aggregate posterior, side by side."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from causalvae_fast.figures.prior_posterior import draw_prior_posterior

SAMPLES = np.random.default_rng(0).normal(size=(200, 2))


def test_a_column_for_each_model(tmp_path: Path) -> None:
    panel = ("model", SAMPLES, SAMPLES + 1, [0, 1])
    one = imread(draw_prior_posterior([panel], tmp_path / "one.png"))
    three = imread(draw_prior_posterior([panel] * 3, tmp_path / "three.png"))
    assert three.shape[1] > 2 * one.shape[1]
    assert three.shape[0] == one.shape[0]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="panels must have at least one"):
        draw_prior_posterior([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="posterior of 'model'"):
        draw_prior_posterior([("model", SAMPLES, SAMPLES[:, :1], [0, 1])], tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
