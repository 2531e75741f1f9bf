"""Held-out R2 of a linear fit."""

import numpy as np
import pytest
import torch
from torch import Tensor

from causalvae_fast.metrics import linear_r2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hand_worked_line() -> None:
    """The fit on any three of the points is the line itself, so that the score can be worked out."""
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], dtype=torch.float64)
    y = 2 * x + 1
    torch.testing.assert_close(linear_r2(x, y), torch.ones(1, dtype=torch.float64))
    # Move a held-out point by 3: the residuals are (0, 0, 3).
    held_out = torch.randperm(6, generator=torch.Generator().manual_seed(0))[3:]
    y[held_out[0]] += 3
    deviation = y[held_out] - y[held_out].mean()
    expected = 1 - 9 / deviation.square().sum(0)
    torch.testing.assert_close(linear_r2(x, y), expected)


def test_numpy_least_squares() -> None:
    z, noise = normal(201, 3), normal(201, 2, seed=1)
    y = z[:, :2] @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64) + noise + 5
    order = torch.randperm(201, generator=torch.Generator().manual_seed(7)).numpy()
    fit, held_out = order[:100], order[100:]
    design = np.c_[z.numpy(), np.ones(201)]
    coefficients = np.linalg.lstsq(design[fit], y.numpy()[fit], rcond=None)[0]
    residual = y.numpy()[held_out] - design[held_out] @ coefficients
    expected = 1 - (residual**2).sum(0) / ((y.numpy()[held_out] - y.numpy()[held_out].mean(0)) ** 2).sum(0)
    torch.testing.assert_close(linear_r2(z, y, seed=7), torch.from_numpy(expected))


def test_unchanged_by_an_affine_map_of_either_side() -> None:
    z, y = normal(300, 3), normal(300, 2, seed=1)
    y = y + z[:, :2]
    r2 = linear_r2(z, y)
    mixing = normal(3, 3, seed=2) + 3 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(linear_r2(z @ mixing + 10, y), r2)
    torch.testing.assert_close(linear_r2(z, -4 * y + 2), r2)


def test_unrelated_latents_explain_nothing() -> None:
    r2 = linear_r2(normal(4000, 4), normal(4000, 2, seed=1))
    assert ((r2 > -0.02) & (r2 < 0.02)).all()


def test_overfitting_earns_nothing() -> None:
    """In-sample, 50 unrelated predictors of 55 points would reach R2 = 0.9."""
    assert (linear_r2(normal(110, 50), normal(110, 1, seed=1)) < 0).all()


def test_constant_and_repeated_latents_do_no_harm() -> None:
    z = normal(100, 2)
    padded = torch.cat([z, z[:, :1], torch.ones(100, 1), 1e-3 * z[:, 1:]], dim=1)
    torch.testing.assert_close(linear_r2(padded, z), torch.ones(2, dtype=torch.float64))


def test_a_constant_target_has_no_r2() -> None:
    targets = torch.cat([torch.full((50, 1), 0.1), normal(50, 1).float()], dim=1)
    r2 = linear_r2(normal(50, 2, seed=1).float(), targets)
    assert r2.isnan().tolist() == [True, False]


def test_seed_sets_the_split() -> None:
    z, y = normal(40, 1), normal(40, 1, seed=1)
    assert torch.equal(linear_r2(z, y, seed=3), linear_r2(z, y, seed=3))
    assert not torch.equal(linear_r2(z, y, seed=3), linear_r2(z, y, seed=4))


def test_float32_is_fitted_in_float64_without_a_graph() -> None:
    z = normal(100, 2).float().requires_grad_()
    r2 = linear_r2(z, 1000 + 0.1 * z)
    assert r2.dtype == torch.float64
    assert not r2.requires_grad
    assert (r2 > 0.999).all()


def test_fewest_samples() -> None:
    assert linear_r2(normal(8, 2), normal(8, 3)).shape == (3,)
    with pytest.raises(ValueError, match="latents must have at least 8 samples for k = 2, got 7"):
        linear_r2(normal(7, 2), normal(7, 3))


@pytest.mark.parametrize(
    ("latents", "targets", "message"),
    [
        (torch.zeros(20), torch.zeros(20, 1), "latents must have two dimensions"),
        (torch.zeros(20, 1), torch.zeros(20), "targets must have two dimensions"),
        (torch.zeros(20, 1), torch.zeros(19, 1), "targets must have the 20 samples of latents, got 19"),
        (torch.full((20, 1), torch.nan), torch.zeros(20, 1), "latents must be finite"),
        (torch.zeros(20, 1), torch.full((20, 1), torch.inf), "targets must be finite"),
    ],
)
def test_errors_name_the_argument(latents: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_r2(latents, targets)
