"""One training step of a small image VAE: what the causal prior costs where it is used.

    python -m pytest bench/bench_vae_step.py

An MLP of 784-256-16 and back, batches of 128, Adam; a step is forward pass, backward pass and update. The members
of the group differ in the KL term alone: `ours` is a `SEMPrior` with a linear mechanism, `ours_edges` one whose
edges are learned, `isotropic` the closed form of the KL from N(0, I) that they replace, and
`isotropic_distributions` the same by torch.distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from interleave import Call, Compare, playback
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from causalvae_fast import GumbelEdges, LinearMechanism, SEMPrior

PIXELS, HIDDEN, LATENTS = 784, 256, 16


class Case(NamedTuple):
    batch: int

    def __str__(self) -> str:
        return f"{self.batch}x{LATENTS}-image-vae-step"


CONTENDERS = ("ours", "ours_edges", "isotropic", "isotropic_distributions")
KL = Callable[[Tensor, Tensor], Tensor]  # of posteriors with loc and scale, (B, d) each: the mean over the batch


def isotropic(loc: Tensor, scale: Tensor) -> Tensor:
    return 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(-1).mean()


def isotropic_distributions(loc: Tensor, scale: Tensor) -> Tensor:
    return kl_divergence(Normal(loc, scale), Normal(0.0, 1.0)).sum(-1).mean()


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENTS))
        self.decoder = nn.Sequential(nn.Linear(LATENTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))


class VAEStepContenders:
    """Each trains a VAE of its own from the same start; the result of a step is its loss."""

    def __init__(self, case: Case) -> None:
        self.images = torch.rand(case.batch, PIXELS, generator=torch.Generator().manual_seed(0))

    def build(self, contender: str) -> Call:
        torch.manual_seed(0)
        vae = VAE()
        kl, parameters = self._kl(contender)
        optimizer = torch.optim.Adam([*vae.parameters(), *parameters], lr=1e-4)

        def step() -> Tensor:
            loc, log_scale = vae.encoder(self.images).chunk(2, -1)
            scale = log_scale.exp()
            z = loc + scale * torch.randn_like(scale)
            error = nn.functional.binary_cross_entropy_with_logits(vae.decoder(z), self.images, reduction="sum")
            loss = error / len(self.images) + kl(loc, scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    def _kl(self, contender: str) -> tuple[KL, list[nn.Parameter]]:
        if contender == "isotropic":
            return isotropic, []
        if contender == "isotropic_distributions":
            return isotropic_distributions, []
        edges = GumbelEdges(LATENTS) if contender == "ours_edges" else None
        prior = SEMPrior(LinearMechanism(LATENTS), edges)
        return lambda loc, scale: prior.kl(loc, scale=scale, reduction="mean"), list(prior.parameters())

    def verify(self, contender: str, result: Tensor) -> None:
        assert result.isfinite(), f"{contender}: the loss is {result.item()}"


@pytest.mark.benchmark(timer=playback)
@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("case", [Case(128)], ids=str)
def test_vae_step(case: Case, contender: str, compare: Compare) -> None:
    described = {"shape": [case.batch, LATENTS], "mode": "step", "dtype": "float32"}
    compare("vae_step", VAEStepContenders(case), described, None)
