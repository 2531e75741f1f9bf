"""Disentanglement, completeness, informativeness."""

import math

import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from causalvae_fast.metrics import dci, disentanglement_completeness
from causalvae_fast.metrics.dci import lasso


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entropy(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares if p > 0)


def test_hand_worked_importance() -> None:
    """Latent 0 serves both factors, 3 to 1; latent 1 the second only; latent 2 nothing."""
    importance = torch.tensor([[3.0, 1.0], [0.0, 4.0], [0.0, 0.0]])
    disentanglement, completeness = disentanglement_completeness(importance)
    assert disentanglement == pytest.approx(0.5 * (1 - entropy(0.75, 0.25) / math.log(2)) + 0.5)
    assert completeness == pytest.approx(3 / 8 + 5 / 8 * (1 - entropy(0.2, 0.8) / math.log(3)))


def test_extremes() -> None:
    assert disentanglement_completeness(torch.eye(4)[[2, 0, 3, 1]]) == (1, 1)
    assert disentanglement_completeness(torch.ones(4, 3)) == pytest.approx((0, 0))
    assert disentanglement_completeness(torch.ones(1, 3)) == pytest.approx((0, 1))  # one latent, for all
    assert disentanglement_completeness(torch.ones(3, 1)) == pytest.approx((1, 0))
    assert all(math.isnan(score) for score in disentanglement_completeness(torch.zeros(2, 2)))


@pytest.mark.parametrize("l1", [0.001, 0.1, 0.5])
def test_lasso_against_scikit_learn(l1: float) -> None:
    z = normal(80, 5)
    z[:, 4] += z[:, 0]
    y = z @ normal(5, 3, seed=1) + normal(80, 3, seed=2)
    z, y = z - z.mean(0), y - y.mean(0)
    expected = Lasso(alpha=l1, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(z.numpy(), y.numpy()).coef_
    torch.testing.assert_close(lasso(z, y, l1), torch.from_numpy(expected).mT, rtol=0, atol=1e-8)
    assert (lasso(z, y, 100.0) == 0).all()


def test_latents_that_are_the_factors() -> None:
    factors = normal(2000, 3)
    result = dci(2 * factors[:, [1, 2, 0]] + 1, factors)
    assert result.disentanglement == pytest.approx(1)
    assert result.completeness == pytest.approx(1)
    assert (result.informativeness > 0.999).all()
    assert result.importance.argmax(0).tolist() == [2, 0, 1]


def test_rotated_latents_are_informative_and_entangled() -> None:
    factors = normal(2000, 2)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    result = dci(factors @ turn, factors)
    assert (result.informativeness > 0.999).all()
    assert result.disentanglement < 0.01
    assert result.completeness < 0.01


def test_a_factor_in_two_latents_is_disentangled_and_not_complete() -> None:
    factors = normal(2000, 2)
    noise = 0.3 * normal(2000, 2, seed=1)
    latents = torch.cat((factors[:, :1] + noise[:, :1], factors[:, :1] + noise[:, 1:], factors[:, 1:]), 1)
    result = dci(latents, factors)
    assert result.disentanglement > 0.9
    assert result.completeness == pytest.approx((1 - entropy(0.5, 0.5) / math.log(3) + 1) / 2, abs=0.03)


def test_constant_and_unrelated_latents() -> None:
    result = dci(torch.ones(100, 2), normal(100, 2))
    assert math.isnan(result.disentanglement)
    assert (result.informativeness < 0.1).all()


def test_seed_sets_the_split() -> None:
    z, y = normal(40, 2), normal(40, 1, seed=1)
    assert torch.equal(dci(z, y, seed=3).informativeness, dci(z, y, seed=3).informativeness)
    assert not torch.equal(dci(z, y, seed=3).informativeness, dci(z, y, seed=4).informativeness)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="l1 must be at least 0, got -1"):
        dci(normal(10, 1), normal(10, 1), l1=-1)
    with pytest.raises(ValueError, match="latents must have at least 4 samples, got 3"):
        dci(normal(3, 1), normal(3, 1))
    with pytest.raises(ValueError, match="factors has constant columns"):
        dci(normal(10, 1), torch.ones(10, 1))
    with pytest.raises(ValueError, match="importance must be finite and at least 0"):
        disentanglement_completeness(-torch.eye(2))
    with pytest.raises(ValueError, match=r"importance must have shape \(k, m\)"):
        disentanglement_completeness(torch.ones(2))


def test_a_factor_that_is_constant_in_the_held_out_half_has_no_score() -> None:
    """Of 0.1 too, whose mean over seven samples differs from it in the last bit."""
    held_out = torch.randperm(14, generator=torch.Generator().manual_seed(0))[7:]
    factors = normal(14, 2, seed=1)
    factors[held_out, 0] = 0.1
    informativeness = dci(normal(14, 2), factors).informativeness
    assert informativeness.isnan().tolist() == [True, False]
