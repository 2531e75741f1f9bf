"""The regressions and the local scores made of them."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from causalvae_fast.discovery import regression
from causalvae_fast.discovery.local_scores import LocalScores, members
from causalvae_fast.discovery.regression import LINEAR_SCALE, RIDGES, Regressions


def data(n: int, d: int = 3, seed: int = 0) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, -1] += torch.tanh(2 * x[:, 0])
    x = x - x.mean(0)
    return x / x.square().mean(0).sqrt()


def left_out(X: Tensor, node: int, parents: list[int], ridge: float, fit: Regressions) -> np.ndarray:
    """Residuals of fits by scikit-learn, each without the sample that it is then asked for."""
    x = X[:, parents]
    angles = x @ fit._frequencies[parents] / math.sqrt(len(parents)) + fit._phases
    features = torch.cat((LINEAR_SCALE * x, math.sqrt(2 / angles.shape[1]) * angles.cos()), 1).numpy()
    y = X[:, node].numpy()
    residuals = []
    for k in range(len(y)):
        others = np.arange(len(y)) != k
        model = Ridge(alpha=ridge, solver="svd").fit(features[others], y[others])
        residuals.append(y[k] - model.predict(features[k : k + 1])[0])
    return np.array(residuals)


@pytest.mark.parametrize("parents", [[0], [0, 1]])
def test_residuals_are_those_of_fits_without_the_sample(parents: list[int]) -> None:
    X = data(25)
    fit = Regressions(X, features=8, seed=0)
    residuals = fit.residuals([(2, sum(1 << j for j in parents))])[0].numpy()
    expected = [left_out(X, 2, parents, ridge, fit) for ridge in RIDGES]
    best = min(expected, key=lambda r: (r**2).sum())
    np.testing.assert_allclose(residuals, best, rtol=0, atol=1e-9)


def test_without_parents_the_mean_of_the_others_is_left() -> None:
    X = data(50)
    residuals = Regressions(X, features=8, seed=0).residuals([(1, 0)])[0]
    expected = torch.stack([X[k, 1] - X[torch.arange(50) != k, 1].mean() for k in range(50)])
    torch.testing.assert_close(residuals, expected, rtol=0, atol=1e-12)


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    X = data(60)
    fits = [(2, 0b011), (0, 0b010), (1, 0b101), (2, 0)]
    whole = Regressions(X, features=10, seed=0).residuals(fits)
    monkeypatch.setattr(regression, "WORKING_SIZE", 700)  # of 13 features: one fit and 53 rows at a time
    parts = Regressions(X, features=10, seed=0)
    batches = list(parts.batches(fits))
    assert len(batches) == 4
    torch.testing.assert_close(torch.cat([parts.residuals(batch) for batch in batches]), whole, rtol=0, atol=1e-9)


def test_a_smooth_function_is_found_and_noise_is_not() -> None:
    """The residual variance is that of the noise, up to what a fit to 2,000 samples costs."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 2000, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x) + 0.5 * noise
    X = torch.stack((x, y), 1)
    scale = X.var(0, correction=0)
    X = (X - X.mean(0)) / scale.sqrt()
    local = LocalScores(X, features=100, seed=0, report=lambda done: None)
    residual_variance = torch.tensor(2 * local(1, 0b01) + math.log(2 * math.pi * math.e)).neg().exp() * scale[1]
    assert 0.97 < residual_variance / (0.25 * noise.var()) < 1.02
    assert local(0, 0) == pytest.approx(-0.5 * math.log(2 * math.pi * math.e), abs=1e-3)


def test_score_of_a_node_by_hand() -> None:
    X = data(60)
    local = LocalScores(X, features=10, seed=0, report=lambda done: None)
    r = Regressions(X, features=10, seed=0).residuals([(2, 0b001)])[0]
    sigma = r.square().mean().sqrt()
    expected = torch.distributions.Normal(0.0, sigma).log_prob(r).mean()
    assert local(2, 0b001) == pytest.approx(float(expected), abs=1e-12)


def test_densities_of_samples_add_up_to_the_scores() -> None:
    X = data(60)
    local = LocalScores(X, features=10, seed=0, report=lambda done: None)
    graph, other = (0, 0b001, 0b001), (0b100, 0b001, 0)
    densities, others = local.log_densities(graph, other)
    assert densities.shape == (60,)
    expected = sum(local(i, bits) for i, bits in enumerate(graph)) - sum(local(i, b) for i, b in enumerate(other))
    assert float((densities - others).mean()) == pytest.approx(expected, abs=1e-12)
    same, too = local.log_densities(graph, graph)
    assert torch.equal(same, too)


def test_nothing_is_fitted_twice() -> None:
    done: list[int] = []
    local = LocalScores(data(40), features=5, seed=0, report=done.append)
    local.fit([(0, 0), (1, 0b100), (0, 0)])
    local.fit([(1, 0b100)])
    local(1, 0b100)
    assert done == [2]
    assert local.fits == 2


def test_a_column_without_noise_of_its_own() -> None:
    X = data(2000)
    total = X[:, 0] + X[:, 1]
    X[:, 2] = (total - total.mean()) / total.std(correction=0)
    local = LocalScores(X, features=10, seed=0, report=lambda done: None)
    with pytest.raises(ValueError, match=r"column 2 is a function of the columns \[0, 1\]"):
        local(2, 0b011)
    local = LocalScores(X, features=10, seed=0, report=lambda done: None, names="abc")
    with pytest.raises(ValueError, match=r"column 'c' is a function of the columns \['a', 'b'\]"):
        local(2, 0b011)


def test_members() -> None:
    assert members(0) == []
    assert members(0b10110) == [1, 2, 4]
