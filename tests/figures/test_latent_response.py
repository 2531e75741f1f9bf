"""The drawing of the latents over the plane of positions."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from causalvae_fast.figures import draw_latent_response

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved while a test runs."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def record(figure: Figure, *args: object, **kwargs: object) -> None:
        figures.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures


def positions(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(7, 12, (n, 2))


def test_writes_a_png_and_returns_its_path(tmp_path: Path) -> None:
    xy = positions(50)
    path = draw_latent_response(xy, np.c_[xy, xy], tmp_path / "new" / "response.png")
    assert path == tmp_path / "new" / "response.png"
    assert path.read_bytes().startswith(PNG)


def test_titles_give_the_r2(tmp_path: Path, drawn: list[Figure]) -> None:
    xy = positions(400)
    unrelated = np.random.default_rng(1).normal(size=(400, 1))
    draw_latent_response(xy, np.c_[xy @ [[1.0], [-2.0]], unrelated, np.ones((400, 1))], tmp_path / "r.png")
    *panels, bar = drawn[0].axes
    assert [axes.get_title("left") for axes in panels] == ["$z_{1}$", "$z_{2}$", "$z_{3}$"]
    assert panels[0].get_title("right") == "$R^2$ = 1.00"
    assert float(panels[1].get_title("right").split()[-1].replace("\u2212", "-")) < 0.05
    assert panels[2].get_title("right") == "constant"
    assert "minus its mean" in bar.get_ylabel()


def test_colours_are_symmetric_about_the_mean_and_shared(tmp_path: Path, drawn: list[Figure]) -> None:
    xy = positions(300)
    z = np.c_[xy[:, 0] + 100, 0.01 * xy[:, 1]]
    draw_latent_response(xy, z, tmp_path / "r.png")
    scales = [axes.collections[0].get_clim() for axes in drawn[0].axes[:2]]
    assert scales[0] == scales[1]
    low, high = scales[0]
    assert low == -high
    # 99.5 % of the deviations from the mean, which reach 2.5 or so.
    assert 2 < high < 3
    colours = drawn[0].axes[0].collections[0].get_array()
    assert colours is not None
    offsets = drawn[0].axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(colours, offsets[:, 0] - xy[:, 0].mean())


def test_y_points_down_as_in_an_image(tmp_path: Path, drawn: list[Figure]) -> None:
    xy = positions(50)
    draw_latent_response(xy, xy, tmp_path / "r.png")
    for axes in drawn[0].axes[:2]:
        assert axes.yaxis_inverted()
        assert not axes.xaxis_inverted()


def test_more_than_four_latents_start_a_row(tmp_path: Path) -> None:
    xy = positions(50)
    four = imread(draw_latent_response(xy, np.tile(xy, 2), tmp_path / "4.png"))
    six = imread(draw_latent_response(xy, np.tile(xy, 3), tmp_path / "6.png"))
    assert four.shape[1] == six.shape[1]
    assert four.shape[0] < six.shape[0]


def test_many_samples_are_thinned_for_drawing(tmp_path: Path, drawn: list[Figure]) -> None:
    xy = positions(5000)
    draw_latent_response(xy, xy[:, :1], tmp_path / "r.png")
    assert len(drawn[0].axes[0].collections[0].get_offsets()) == 4000


def test_tensors_with_a_gradient_and_lists(tmp_path: Path) -> None:
    xy = torch.from_numpy(positions(20)).float().requires_grad_()
    assert draw_latent_response(xy, 2 * xy, tmp_path / "t.png").exists()
    assert draw_latent_response(xy.tolist(), xy.tolist(), tmp_path / "l.png").exists()


def test_constant_input(tmp_path: Path) -> None:
    assert draw_latent_response(np.ones((10, 2)), np.zeros((10, 1)), tmp_path / "c.png").exists()


@pytest.mark.parametrize(
    ("xy", "z", "message"),
    [
        (np.zeros((10, 3)), np.zeros((10, 1)), r"positions must have shape \(N, 2\) with N >= 8"),
        (np.zeros((7, 2)), np.zeros((7, 1)), r"positions must have shape \(N, 2\) with N >= 8"),
        (np.zeros((10, 2)), np.zeros(10), r"latents must have shape \(10, k\)"),
        (np.zeros((10, 2)), np.zeros((9, 1)), r"latents must have shape \(10, k\)"),
        (np.zeros((10, 2)), np.zeros((10, 0)), r"latents must have shape \(10, k\)"),
        (np.full((10, 2), np.nan), np.zeros((10, 1)), "positions must be finite"),
        (np.zeros((10, 2)), np.full((10, 1), np.inf), "latents must be finite"),
    ],
)
def test_errors_name_the_argument(xy: np.ndarray, z: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_latent_response(xy, z, tmp_path / "r.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'causalvae_fast\[plots\]'"):
        draw_latent_response(positions(10), positions(10), tmp_path / "r.png")
