"""Leakage: the response of latents to what others carry."""

import pytest
import torch

from causalvae_fast.metrics import leakage


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Every combination of a position of 5 values and something else of 4, (20,) each."""
    both = torch.cartesian_prod(torch.arange(5.0), torch.arange(4.0))
    return both[:, 0], both[:, 1]


def test_the_response_is_that_of_the_conditional_mean() -> None:
    position, other = grid()
    z = torch.stack([2 * position, other, 0.5 * position + 3 * other, position.square()], 1)
    result = leakage(z, position.unsqueeze(1), carriers=(0,))
    sd = position.double().std(correction=0)
    expected = torch.stack([2 * sd, 0 * sd, 0.5 * sd, position.double().square().std(correction=0)])
    torch.testing.assert_close(result.response, expected)
    assert result.leakage == pytest.approx(float(expected[3] / expected[0]))


def test_what_carries_something_else_does_not_leak() -> None:
    position, other = grid()
    z = torch.stack([position, position * (other - other.mean())], 1)
    assert leakage(z, position.unsqueeze(1), carriers=(0,)).leakage == pytest.approx(0, abs=1e-12)


def test_carriers_alone_and_a_dead_carrier() -> None:
    position, other = grid()
    z = torch.stack([position, other], 1)
    assert leakage(z, position.unsqueeze(1), carriers=(0, 1)).leakage == 0
    assert leakage(z, position.unsqueeze(1), carriers=(1,)).leakage > 1e12


@pytest.mark.parametrize("carriers", [(), (2,), (-1,)])
def test_carriers_that_are_not_there(carriers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="carriers must be some of 0 to 1"):
        leakage(torch.randn(5, 2), torch.arange(5.0)[:, None], carriers)
