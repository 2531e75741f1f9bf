"""Distances between two sets of samples: sliced Wasserstein, and a classifier between them."""

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from causalvae_fast.metrics import classifier_two_sample, sliced_wasserstein


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parabola(n: int, seed: int) -> Tensor:
    """z2 = z1^2 + noise, with the means and variances of each coordinate as in `shuffled`."""
    z = normal(n, 2, seed)
    return torch.stack([z[:, 0], z[:, 0].square() + 0.3 * z[:, 1]], 1)


def shuffled(n: int, seed: int) -> Tensor:
    z = parabola(n, seed)
    return torch.stack([z[:, 0], z[:, 1].roll(1)], 1)


def test_one_dimension_against_scipy() -> None:
    """A shift and its W1 are known to scipy; for a shift W2 is the same."""
    a = normal(500, 1, 0)
    assert sliced_wasserstein(a, a + 0.7) == pytest.approx(wasserstein_distance(a[:, 0], a[:, 0] + 0.7))


def test_a_shift_in_d_dimensions() -> None:
    """A shift v gives E (u . v)^2 = |v|^2 / d."""
    a = normal(300, 3, 1)
    shift = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    assert sliced_wasserstein(a, a + shift, projections=20_000) == pytest.approx(3 / 3**0.5, rel=0.02)


def test_the_order_of_the_samples_does_not_matter() -> None:
    a = normal(100, 3, 2)
    assert sliced_wasserstein(a, a.flip(0)) == pytest.approx(0, abs=1e-12)


def test_a_parabola_is_seen_by_both() -> None:
    """Coordinate by coordinate the two are the same."""
    same = sliced_wasserstein(parabola(2000, 3), parabola(2000, 4))
    assert sliced_wasserstein(parabola(2000, 3), shuffled(2000, 4)) > 1.3 * same
    assert classifier_two_sample(parabola(1000, 3), shuffled(1000, 4)) > 0.7
    assert abs(classifier_two_sample(parabola(1000, 3), parabola(1000, 4)) - 0.5) < 0.06


def test_a_classifier_with_unequal_numbers() -> None:
    assert abs(classifier_two_sample(normal(200, 2, 5), normal(1800, 2, 6)) - 0.5) < 0.1
    assert classifier_two_sample(normal(200, 2, 5), normal(1800, 2, 6) + 5) > 0.99


def test_a_classifier_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    first = classifier_two_sample(normal(20, 2, 5), normal(20, 2, 6))
    assert torch.equal(torch.randn(3), expected)
    assert classifier_two_sample(normal(20, 2, 5), normal(20, 2, 6)) == first


@pytest.mark.parametrize("metric", [sliced_wasserstein, classifier_two_sample])
def test_errors_name_the_argument(metric: object) -> None:
    with pytest.raises(ValueError, match="b must have the 2 dimensions of a, got 3"):
        metric(normal(5, 2, 0), normal(5, 3, 0))  # type: ignore[operator]
    with pytest.raises(ValueError, match="a must be finite"):
        metric(torch.full((5, 2), torch.nan), normal(5, 2, 0))  # type: ignore[operator]
