"""Peak signal-to-noise ratio."""

import math

import pytest
import torch

from causalvae_fast.metrics import psnr


def test_hand_worked() -> None:
    """An error of a tenth everywhere is 20 dB; of a tenth in one pixel of four, 10 log10(400)."""
    target = torch.zeros(2, 2, 2, dtype=torch.float64)
    reconstruction = target.clone()
    reconstruction[0] = 0.1
    reconstruction[1, 0, 0] = -0.1
    expected = torch.tensor([20, 10 * math.log10(400)], dtype=torch.float64)
    torch.testing.assert_close(psnr(reconstruction, target), expected)


def test_exact_reconstruction_is_infinite() -> None:
    images = torch.rand(3, 4, 4)
    assert psnr(images, images).isposinf().all()


def test_default_range_of_uint8() -> None:
    target = torch.tensor([[0, 255]], dtype=torch.uint8)
    reconstruction = torch.tensor([[51, 204]], dtype=torch.uint8)  # an error of a fifth, of either sign
    expected = torch.tensor([20 * math.log10(5)], dtype=torch.float64)
    torch.testing.assert_close(psnr(reconstruction, target), expected)


def test_range_and_scale_belong_together() -> None:
    target, reconstruction = torch.rand(2, 5, 8, dtype=torch.float64)
    scaled = psnr(255 * reconstruction, 255 * target, data_range=255)
    torch.testing.assert_close(scaled, psnr(reconstruction, target))
    twice = psnr(reconstruction, target, data_range=2) - psnr(reconstruction, target)
    torch.testing.assert_close(twice, torch.full((5,), 20 * math.log10(2), dtype=torch.float64))


def test_each_image_by_itself() -> None:
    target, reconstruction = torch.rand(2, 5, 3, 4, dtype=torch.float64)
    values = psnr(reconstruction, target)
    for i in range(5):
        torch.testing.assert_close(values[i : i + 1], psnr(reconstruction[i : i + 1], target[i : i + 1]))


def test_errors() -> None:
    with pytest.raises(ValueError, match="reconstruction must have the shape of target"):
        psnr(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="target must have shape"):
        psnr(torch.zeros(3), torch.zeros(3))
    with pytest.raises(TypeError, match="reconstruction must have the dtype of target"):
        psnr(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.uint8))
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="data_range must be above 0"):
            psnr(torch.zeros(2, 3), torch.zeros(2, 3), data_range=bad)
