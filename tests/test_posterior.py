"""Posteriors as the prior takes them: as distributions, and those of several frames as one."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from causalvae_fast.ops import pack_tril
from causalvae_fast.posterior import Posterior, concatenated, parameters_of


def factors(batch: int, d: int) -> Tensor:
    return torch.randn(batch, d, d).tril(-1) + torch.diag_embed(torch.rand(batch, d) + 0.5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_full_posterior_is_a_multivariate_normal(packed: bool) -> None:
    loc, L = torch.randn(5, 3), factors(5, 3)
    q = Posterior(loc, None, pack_tril(L) if packed else L).distribution()
    assert isinstance(q, MultivariateNormal)
    torch.testing.assert_close(q.covariance_matrix, L @ L.mT)
    torch.testing.assert_close(parameters_of(q).loc, loc)


def test_a_diagonal_one_is_a_normal() -> None:
    loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 0.5
    q = Posterior(loc, scale, None).distribution()
    assert isinstance(q, Independent)
    torch.testing.assert_close(q.stddev, scale)
    assert (q.batch_shape, q.event_shape) == ((5,), (3,))


@pytest.mark.parametrize("kind", ["diagonal", "full", "packed"])
def test_parts_that_are_joined_are_independent(kind: str) -> None:
    """The density of the whole is the product of the densities of its parts."""
    loc, L = torch.randn(6, 3), factors(6, 3)
    scale = L.diagonal(dim1=1, dim2=2) if kind == "diagonal" else None
    matrix = {"diagonal": None, "full": L, "packed": pack_tril(L)}[kind]
    parts = Posterior(loc, scale, matrix)
    whole = parts.joined(2)
    z = torch.randn(6, 3)
    assert whole.loc.shape == (3, 6)
    expected = parts.log_prob(z).unflatten(0, (3, 2)).sum(1)
    torch.testing.assert_close(whole.log_prob(z.reshape(3, 6)), expected)


def test_a_sample_of_each() -> None:
    q = Posterior(torch.zeros(20_000, 2), None, torch.tensor([[2.0, 0.0], [1.0, 0.5]]).expand(20_000, 2, 2))
    covariance = q.rsample().T.cov()
    torch.testing.assert_close(covariance, torch.tensor([[4.0, 2.0], [2.0, 1.25]]), rtol=0.1, atol=0)


def test_batches_are_put_together_and_taken_apart() -> None:
    q = Posterior(torch.randn(5, 3), None, factors(5, 3))
    halves = [q.chosen(torch.tensor(index)) for index in ([0, 1], [2, 3, 4])]
    whole = concatenated(halves)
    assert torch.equal(whole.loc, q.loc)
    assert whole.scale is None
    assert whole.scale_tril is not None
    assert torch.equal(whole.scale_tril, q.scale_tril)  # type: ignore[arg-type]
    noise = torch.randn(5, 3)
    torch.testing.assert_close(q.rsample(noise)[2:], halves[1].rsample(noise[2:]))
