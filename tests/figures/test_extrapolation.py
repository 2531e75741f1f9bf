"""The drawing of extrapolated frames beside the true ones."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib.image import imread

from causalvae_fast.figures import _canvas, draw_extrapolation

PNG = b"\x89PNG\r\n\x1a\n"


def frames(n: int = 2, steps: int = 4, size: int = 10, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, steps, size, size, channels), dtype=np.uint8)


def read(path: Path) -> np.ndarray:
    return np.round(255 * imread(path)[..., :3]).astype(int)


def mask(picture: np.ndarray, colour: tuple[int, ...] | str) -> np.ndarray:
    """Where a picture has exactly this colour."""
    rgb = np.round(255 * np.array(colors.to_rgb(colour))) if isinstance(colour, str) else np.array(colour)
    return np.all(picture == rgb, axis=-1)


def test_writes_a_png_and_returns_its_path(tmp_path: Path) -> None:
    path = draw_extrapolation(frames(), frames(seed=1), 2, tmp_path / "new" / "e.png")
    assert path == tmp_path / "new" / "e.png"
    assert path.read_bytes().startswith(PNG)


def test_each_pixel_is_a_square_of_its_own_colour(tmp_path: Path) -> None:
    truth, predicted = frames(1, 2, 5), frames(1, 2, 5, seed=1)
    picture = read(draw_extrapolation(truth, predicted, 1, tmp_path / "e.png"))
    # Away from the borders of its frame, a pixel of the image fills a square of 26 x 26 screen pixels.
    for colour in [*truth[0, :, 2, 2], *predicted[0, :, 2, 2]]:
        rows, columns = np.nonzero(mask(picture, tuple(colour)))
        assert len(rows) == 26**2
        assert np.ptp(rows) == np.ptp(columns) == 25


def test_truth_above_prediction_and_time_to_the_right(tmp_path: Path) -> None:
    truth, predicted = np.zeros((2, 2, 2, 5, 5, 3), dtype=np.uint8)
    shades = np.array([[[10, 20], [30, 40]], [[50, 60], [70, 80]]])  # (sample, row, time)
    for sample in range(2):
        for t in range(2):
            truth[sample, t] = shades[sample, 0, t]
            predicted[sample, t] = shades[sample, 1, t]
    picture = read(draw_extrapolation(truth, predicted, 1, tmp_path / "e.png"))
    centres = {s: [v.mean() for v in np.nonzero(mask(picture, (s,) * 3))] for s in shades.ravel().tolist()}
    rows = [
        [centres[shades[sample, row, 0]][0], centres[shades[sample, row, 1]][0]]
        for sample in range(2)
        for row in range(2)
    ]
    np.testing.assert_allclose(np.diff(rows, axis=1), 0, atol=1)  # one line for each series of frames
    assert (np.diff(np.array(rows)[:, 0]) > 0).all()
    for sample in range(2):
        for row in range(2):
            assert centres[shades[sample, row, 0]][1] < centres[shades[sample, row, 1]][1]


def test_extrapolated_frames_are_framed_in_colour_and_set_apart(tmp_path: Path) -> None:
    truth = np.zeros((1, 4, 5, 5, 3), dtype=np.uint8)

    def picture(observed: int) -> np.ndarray:
        return read(draw_extrapolation(truth, truth, observed, tmp_path / "e.png"))

    all_observed, two_observed, one_observed = picture(4), picture(2), picture(1)
    assert mask(all_observed, _canvas.VERMILLION).sum() == 0
    assert mask(two_observed, _canvas.VERMILLION).sum() > 0
    assert mask(one_observed, _canvas.VERMILLION).sum() > mask(two_observed, _canvas.VERMILLION).sum()
    assert two_observed.shape[1] > all_observed.shape[1]


def test_uint8_and_float_and_tensor_give_the_same_picture(tmp_path: Path) -> None:
    truth, predicted = frames(), frames(seed=1)
    expected = draw_extrapolation(truth, predicted, 2, tmp_path / "a.png").read_bytes()
    as_float = draw_extrapolation(truth / 255, predicted / np.float32(255), 2, tmp_path / "b.png")
    as_tensor = draw_extrapolation(
        torch.from_numpy(truth), torch.from_numpy(predicted / 255).requires_grad_(), 2, tmp_path / "c.png"
    )
    assert as_float.read_bytes() == expected
    assert as_tensor.read_bytes() == expected


def test_grey_images_are_grey(tmp_path: Path) -> None:
    grey = frames(channels=1)
    in_colour = draw_extrapolation(grey.repeat(3, axis=-1), grey.repeat(3, axis=-1), 2, tmp_path / "c.png")
    assert draw_extrapolation(grey, grey, 2, tmp_path / "g.png").read_bytes() == in_colour.read_bytes()


def test_predictions_out_of_range_are_clipped(tmp_path: Path) -> None:
    truth = np.zeros((1, 2, 5, 5, 3))
    wild = np.full_like(truth, 1.7)
    wild[0, 0] = -0.4
    clipped = draw_extrapolation(truth, np.clip(wild, 0, 1), 1, tmp_path / "a.png").read_bytes()
    assert draw_extrapolation(truth, wild, 1, tmp_path / "b.png").read_bytes() == clipped


@pytest.mark.parametrize("name", ["truth", "predicted"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (frames()[0], r"must have shape \(n, T, H, W, C\) with C 1 or 3"),
        (frames(channels=2), r"must have shape \(n, T, H, W, C\) with C 1 or 3"),
        (frames(n=0), r"must have shape \(n, T, H, W, C\) with C 1 or 3"),
        (frames().astype(int), "must be uint8 or float, got int64"),
        (np.full((2, 4, 10, 10, 3), np.nan), "must be finite"),
    ],
)
def test_errors_name_the_argument(name: str, bad: np.ndarray, message: str, tmp_path: Path) -> None:
    arguments = {"truth": frames(), "predicted": frames()} | {name: bad}
    with pytest.raises(ValueError, match=f"^{name} {message}"):
        draw_extrapolation(**arguments, observed=2, path=tmp_path / "e.png")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="predicted must have the shape of truth"):
        draw_extrapolation(frames(steps=4), frames(steps=3), 2, tmp_path / "e.png")
    with pytest.raises(ValueError, match=r"truth must be uint8 or lie in \[0, 1\], got 0 to 200"):
        draw_extrapolation(np.linspace(0, 200, 75).reshape(1, 1, 5, 5, 3), np.zeros((1, 1, 5, 5, 3)), 1, "e.png")
    for observed in (0, 5):
        with pytest.raises(
            ValueError, match=f"observed must be between 1 and the 4 frames of truth, got {observed}"
        ):
            draw_extrapolation(frames(), frames(), observed, tmp_path / "e.png")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'causalvae_fast\[plots\]'"):
        draw_extrapolation(frames(), frames(), 2, tmp_path / "e.png")
