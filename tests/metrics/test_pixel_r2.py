"""Fraction of the pixel variance that a reconstruction explains."""

import math

import pytest
import torch

from causalvae_fast.metrics import pixel_r2


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hand_worked() -> None:
    """Pixel 0 has variance 1, pixel 1 variance 4: 2.5 on average. The error is 1 in one of four entries."""
    target = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    reconstruction = torch.tensor([[0.0, 0.0], [2.0, 3.0]])
    assert pixel_r2(reconstruction, target) == pytest.approx(1 - 0.25 / 2.5)


def test_perfect_and_mean_image() -> None:
    target = images(10, 4, 5, 3)
    assert pixel_r2(target, target) == 1
    assert pixel_r2(target.mean(0).expand_as(target), target) == pytest.approx(0, abs=1e-12)
    assert pixel_r2(1 - target, target) < 0


def test_a_common_background_earns_nothing() -> None:
    target, reconstruction = images(10, 4, 4), images(10, 4, 4, seed=1)
    background = 100 * images(4, 4, seed=2)
    assert pixel_r2(reconstruction + background, target + background) == pytest.approx(
        pixel_r2(reconstruction, target)
    )


def test_scale_and_order_do_not_matter() -> None:
    target, reconstruction = images(10, 4, 4), images(10, 4, 4, seed=1)
    r2 = pixel_r2(reconstruction, target)
    assert pixel_r2(255 * reconstruction, 255 * target) == pytest.approx(r2)
    assert pixel_r2(reconstruction.flip(0), target.flip(0)) == pytest.approx(r2)


def test_uint8_does_not_wrap_round() -> None:
    target = torch.tensor([[0, 10], [255, 20]], dtype=torch.uint8)
    reconstruction = torch.tensor([[1, 10], [255, 20]], dtype=torch.uint8)
    assert pixel_r2(reconstruction, target) == pytest.approx(pixel_r2(reconstruction.double(), target.double()))


def test_equal_targets_have_no_r2() -> None:
    assert math.isnan(pixel_r2(images(3, 4), torch.full((3, 4), 0.1, dtype=torch.float64)))


def test_errors() -> None:
    with pytest.raises(ValueError, match="reconstruction must have the shape of target"):
        pixel_r2(images(2, 3), images(2, 4))
    with pytest.raises(ValueError, match=r"target must have shape \(N, ...\)"):
        pixel_r2(images(0, 3), images(0, 3))
    with pytest.raises(TypeError, match="reconstruction must have the dtype of target"):
        pixel_r2(images(2, 3), images(2, 3).float())
