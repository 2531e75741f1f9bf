"""The latents of the ovals on which pivots are compared."""

import pivots
import torch
from torch.testing import assert_close


def test_latents_of_ovals() -> None:
    """Rows stay together, in units of their own, beside a column that nothing depends on."""
    x = torch.linspace(-2, 2, 5000)
    factors = torch.stack([x, 3 * x + 1, -x, x.exp()], dim=1)
    latents = pivots.latents_of_ovals(factors, seed=0)
    assert latents.shape == (pivots.DATA, len(pivots.LATENTS))
    assert_close(latents.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert_close(latents.std(0), torch.ones(5))
    assert_close(latents[:, 1], latents[:, 0])
    assert_close(latents[:, 2], -latents[:, 0])
    assert latents.mT.corrcoef()[4, :4].abs().max() < 0.1
    assert torch.equal(latents, pivots.latents_of_ovals(factors, seed=0))
    assert not torch.equal(latents, pivots.latents_of_ovals(factors, seed=1))
