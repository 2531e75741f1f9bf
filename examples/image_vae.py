"""An ordinary image VAE, and the one line that gives it a causal prior.

    python examples/image_vae.py                      # the causal prior
    python examples/image_vae.py --mechanism mlp      # the same with a non-linear SEM
    python examples/image_vae.py --prior isotropic    # what it replaces

The images are bright discs on a dark ground whose vertical position follows their horizontal one, so that there is
something causal to find. Any other image VAE changes in the same place.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from causalvae_fast import GumbelEdges, LinearMechanism, MLPMechanism, NormalizedMechanism, SEMPrior

SIZE = 28  # pixels a side
LATENTS = 4


def draw_discs(n: int, generator: torch.Generator) -> Tensor:
    """Images (n, SIZE * SIZE) in [0, 1]: a disc at (x, y) with y = x / 2 + noise, of random radius."""
    x = torch.rand(n, 1, 1, generator=generator) * 2 - 1
    y = 0.5 * x + 0.15 * torch.randn(n, 1, 1, generator=generator)
    radius = 3 + 2 * torch.rand(n, 1, 1, generator=generator)
    pixel = torch.arange(SIZE) - (SIZE - 1) / 2
    distance = ((pixel - 8 * x).square() + (pixel.unsqueeze(-1) - 8 * y).square()).sqrt()
    return torch.sigmoid(2 * (radius - distance)).flatten(1)


class VAE(nn.Module):
    """Gaussian posterior with diagonal covariance, Bernoulli likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIZE * SIZE, 128), nn.LeakyReLU(), nn.Linear(128, 2 * LATENTS))
        self.decoder = nn.Sequential(nn.Linear(LATENTS, 128), nn.LeakyReLU(), nn.Linear(128, SIZE * SIZE))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """loc and scale, (B, LATENTS) each."""
        loc, log_scale = self.encoder(images).chunk(2, dim=-1)
        return loc, log_scale.exp()


def isotropic_kl(loc: Tensor, scale: Tensor) -> Tensor:
    """KL from N(0, I), (B,)."""
    return kl_divergence(Normal(loc, scale), Normal(0.0, 1.0)).sum(-1)


def make_prior(mechanism: str) -> SEMPrior:
    """A SEM of LATENTS nodes whose edges are learned, "linear" or "mlp"."""
    if mechanism == "linear":
        return SEMPrior(LinearMechanism(LATENTS), GumbelEdges(LATENTS))
    # Normalised outputs fix the scale of each latent, so that the size of its noise is left to learn.
    networks = NormalizedMechanism(MLPMechanism(LATENTS))
    return SEMPrior(networks, GumbelEdges(LATENTS), learn_log_sigma=True)


def train(
    causal: bool, steps: int, batch: int = 128, seed: int = 0, mechanism: str = "linear"
) -> tuple[SEMPrior, list[float]]:
    """The prior, trained or not used, and the loss of each step in nats per image."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    vae = VAE()
    prior = make_prior(mechanism)
    optimizer = torch.optim.Adam([*vae.parameters(), *prior.parameters()], lr=2e-3)
    losses = []
    for _ in range(steps):
        images = draw_discs(batch, generator)
        loc, scale = vae.encode(images)
        z = Normal(loc, scale).rsample()
        logits = vae.decoder(z)
        reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(-1)
        # The one line. Without a causal prior it is: kl = isotropic_kl(loc, scale)
        kl = prior.kl(loc, scale=scale) if causal else isotropic_kl(loc, scale)
        loss = (reconstruction + kl).mean()
        sparsity = 0.1 * prior.expected_edges() if causal else 0.0
        optimizer.zero_grad()
        (loss + sparsity).backward()
        optimizer.step()
        losses.append(loss.item())
    return prior.eval(), losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", choices=("causal", "isotropic"), default="causal")
    parser.add_argument("--mechanism", choices=("linear", "mlp"), default="linear", help="of the causal prior")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    prior, losses = train(arguments.prior == "causal", arguments.steps, mechanism=arguments.mechanism)
    print(
        f"loss of the first step {losses[0]:.1f}, mean of the last 50: {sum(losses[-50:]) / 50:.1f} nats per image"
    )
    if arguments.prior == "causal":
        print("edges found (parent -> child):", [tuple(edge) for edge in prior.adjacency().nonzero().tolist()])


if __name__ == "__main__":
    main()
