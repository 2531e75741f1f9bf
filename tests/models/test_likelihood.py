"""The reconstruction term: minus the log density that each likelihood says it is."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from causalvae_fast.models.likelihood import Likelihood


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    decoded = 0.05 + 0.9 * torch.rand(5, 6, 6, generator=generator)
    return decoded, (torch.rand(5, 6, 6, generator=generator) > 0.5).float()


def test_squared_error(pair: tuple[Tensor, Tensor]) -> None:
    decoded, images = pair
    torch.testing.assert_close(Likelihood("l2")(decoded, images), (decoded - images).square().sum())


def test_gaussian(pair: tuple[Tensor, Tensor]) -> None:
    decoded, images = pair
    likelihood = Likelihood("gaussian")
    with torch.no_grad():
        likelihood.log_scale.fill_(-0.7)
    expected = -Normal(decoded, likelihood.log_scale.detach().exp()).log_prob(images).sum()
    torch.testing.assert_close(likelihood(decoded, images).detach(), expected)


def test_the_learned_scale_is_that_of_the_error(pair: tuple[Tensor, Tensor]) -> None:
    decoded, images = pair
    likelihood = Likelihood("gaussian")
    optimizer = torch.optim.LBFGS(likelihood.parameters(), line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = likelihood(decoded, images)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    error = (decoded - images).square().mean().sqrt()
    torch.testing.assert_close(likelihood.log_scale.detach().exp(), error, rtol=1e-3, atol=0)


def test_a_perfect_decoder_does_not_make_it_infinite() -> None:
    likelihood = Likelihood("gaussian")
    with torch.no_grad():
        likelihood.log_scale.fill_(-1e9)
    assert bool(likelihood(torch.ones(2, 2), torch.ones(2, 2)).isfinite())


def test_bernoulli(pair: tuple[Tensor, Tensor]) -> None:
    decoded, images = pair
    torch.testing.assert_close(
        Likelihood("bernoulli")(decoded, images), -Bernoulli(decoded).log_prob(images).sum()
    )
    assert bool(Likelihood("bernoulli")(torch.zeros(2), torch.ones(2)).isfinite())


def test_another_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="likelihood must be l2, gaussian or bernoulli, got 'poisson'"):
        Likelihood("poisson")
