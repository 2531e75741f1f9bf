"""Mean correlation coefficient, and the linear assignment in it."""

from typing import Literal

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from torch import Tensor

from causalvae_fast.metrics import mcc
from causalvae_fast.metrics._assignment import assign


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (7, 7), (5, 20), (40, 41)])
def test_assignment_against_scipy(shape: tuple[int, int]) -> None:
    for seed in range(5):
        for cost in (normal(*shape, seed=seed), normal(*shape, seed=seed).round()):  # the second with ties
            columns = assign(cost)
            assert len(set(columns)) == shape[0]
            rows, expected = linear_sum_assignment(cost.numpy())
            total = sum(float(cost[row, column]) for row, column in enumerate(columns))
            assert total == pytest.approx(cost.numpy()[rows, expected].sum())


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize(("k", "m"), [(4, 4), (6, 3), (2, 5)])
def test_numpy_and_scipy(method: Literal["pearson", "spearman"], k: int, m: int) -> None:
    factors = normal(200, m, seed=1)
    latents = torch.tanh(factors[:, [i % m for i in range(k)]]) + 0.5 * normal(200, k, seed=2)
    latents[:50] = latents[:50].round()  # ties
    both = np.concatenate([latents.numpy(), factors.numpy()], 1)
    table = np.corrcoef(both, rowvar=False) if method == "pearson" else spearmanr(both).statistic
    expected = np.abs(table[k:, :k])  # (m, k)
    rows, columns = linear_sum_assignment(-expected)
    result = mcc(latents, factors, method)
    assert result.mcc == pytest.approx(expected[rows, columns].sum() / m)
    assert {j: i for j, i in enumerate(result.assignment) if i >= 0} == dict(zip(rows, columns, strict=True))
    np.testing.assert_allclose(result.correlations.numpy()[rows], expected[rows, columns])


def test_order_scale_and_sign_do_not_matter() -> None:
    factors = normal(100, 4)
    latents = -3 * factors[:, [2, 0, 3, 1]] + 7
    result = mcc(latents, factors)
    assert result.mcc == pytest.approx(1)
    assert result.assignment == (1, 3, 0, 2)
    assert mcc(latents.exp(), factors).mcc < 0.9
    assert mcc((latents / 10).exp(), factors, "spearman").mcc == pytest.approx(1)


def test_one_latent_cannot_serve_two_factors() -> None:
    """Taking the best latent of each factor would give 1."""
    z = normal(5000, 1)
    factors = torch.cat((z, z + 1e-3 * normal(5000, 1, seed=1)), 1)
    result = mcc(torch.cat((z, normal(5000, 1, seed=2)), 1), factors)
    assert 0.5 <= result.mcc < 0.52


def test_a_factor_without_a_latent_counts_zero() -> None:
    factors = normal(50, 2)
    result = mcc(factors[:, 1:], factors)
    assert result.assignment == (-1, 0)
    assert result.mcc == pytest.approx(0.5)


def test_a_constant_latent_correlates_with_nothing() -> None:
    factors = normal(50, 2)
    assert mcc(torch.cat((factors[:, :1], torch.full((50, 1), 0.1)), 1), factors).mcc == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("latents", "factors", "message"),
    [
        (torch.zeros(5), torch.zeros(5, 1), "latents must have two dimensions"),
        (torch.zeros(5, 1), torch.arange(4.0)[:, None], "factors must have the 5 samples of latents, got 4"),
        (torch.full((5, 1), torch.nan), torch.arange(5.0)[:, None], "latents must be finite"),
        (torch.zeros(5, 1), torch.ones(5, 2), r"factors has constant columns, \[0, 1\]"),
    ],
)
def test_errors_name_the_argument(latents: Tensor, factors: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mcc(latents, factors)


def test_method() -> None:
    with pytest.raises(ValueError, match='method must be "pearson" or "spearman", got \'kendall\''):
        mcc(normal(5, 1), normal(5, 1), "kendall")  # type: ignore[arg-type]
