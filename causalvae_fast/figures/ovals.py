"""The figures of models trained on the ovals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from causalvae_fast.data import make_ovals
from causalvae_fast.figures.architecture import draw_architecture
from causalvae_fast.figures.graph import draw_graph
from causalvae_fast.figures.latent_response import draw_latent_response
from causalvae_fast.figures.noise_traversal import draw_noise_grid, draw_noise_superimposed
from causalvae_fast.figures.prior_posterior import draw_prior_posterior
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.training.ovals_config import OvalsConfig
from causalvae_fast.training.ovals_evaluation import encode_ovals

_POINTS = 3000
_GRID_REACH, _GRID_STEPS = 2.0, 9  # standard deviations of the noise, and images along them


@torch.no_grad()
def draw_oval_figures(runs: Sequence[tuple[ImageVAE, OvalsConfig]], folder: Path) -> list[Path]:
    """Prior and aggregate posterior of all runs, and of the first one the response to position, traversals of its
    noise, its graph and its architecture; returns the files.
    """
    ovals = make_ovals()
    panels, means = [], []
    for model, config in runs:
        encoded = encode_ovals(model, ovals)
        loc = encoded.loc
        means.append(loc)
        chosen = torch.randperm(len(loc), generator=torch.Generator().manual_seed(0))[:_POINTS]
        posterior = encoded.chosen(chosen).rsample()
        # A causal prior says which two latents to look at; of an isotropic one, the two that vary most.
        causal = model.config.prior != "isotropic"
        pair = [0, 1] if causal else loc.std(0).argsort(descending=True)[:2].sort().values.tolist()
        title = f"{model.config.prior}, beta = {config.beta:g}"
        panels.append((title, model.prior.rsample((_POINTS,))[:, pair], posterior[:, pair], pair))
    model, first = runs[0][0], means[0]
    order = first.std(0).argsort(descending=True).tolist()
    latents = range(model.config.latents)
    images = _traversals(model)
    return [
        draw_prior_posterior(panels, folder / "prior_posterior.png"),
        draw_latent_response(ovals.centers, first[:, order], folder / "latent_response.png", names=order),
        draw_noise_grid(images, latents, _GRID_REACH, folder / "noise_grid.png"),
        draw_noise_superimposed(images, latents, _GRID_REACH, folder / "noise_superimposed.png"),
        draw_graph(model.prior.to_networkx(), 1, model.config.latents, folder / "graph.png"),
        draw_architecture(model, folder / "architecture.png"),
    ]


def _traversals(model: ImageVAE) -> Tensor:
    """(d, steps, H, W): the noise of one latent runs from -2 to 2 standard deviations, that of the others is 0."""
    values = torch.linspace(-_GRID_REACH, _GRID_REACH, _GRID_STEPS)
    noise = values[:, None] * torch.diag_embed(model.prior.log_sigma.exp()).unsqueeze(1)
    z = model.prior.mechanism.solve(noise.flatten(0, 1))
    return model.decode(z).mean(-1).unflatten(0, noise.shape[:2])
