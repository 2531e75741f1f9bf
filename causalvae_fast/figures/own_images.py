"""The figures of a model of the user's own images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from causalvae_fast.data import UserImages
from causalvae_fast.data.user_videos import as_float
from causalvae_fast.figures.architecture import draw_architecture
from causalvae_fast.figures.graph import draw_graph
from causalvae_fast.figures.image_grid import draw_image_grid
from causalvae_fast.figures.prior_posterior import draw_prior_posterior
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.posterior import concatenated, parameters_of
from causalvae_fast.training.own_evaluation import held_out_index

_SHOWN = 10  # images that are reconstructed
_POINTS = 2000
_PAIRS = 4  # of latents whose distribution is drawn
_REACH, _STEPS = 2.0, 9  # standard deviations of the noise, and images along them


@torch.no_grad()
def draw_image_figures(model: ImageVAE, images: UserImages, folder: Path) -> list[Path]:
    """Graph, prior and aggregate posterior, traversals of the noise, reconstructions, and the
    architecture; returns the files.

    Prior and posterior are drawn of the pairs of latents with an edge between them, or of the two that vary most.
    """
    d = model.config.latents
    graph = model.prior.to_networkx()
    index = held_out_index(images, _POINTS)
    q = concatenated([parameters_of(model.encode(images.images(chunk))) for chunk in index.split(100)])
    loc, posterior, prior = q.loc, q.rsample(), model.prior.rsample((len(index),))
    pairs = sorted(graph.edges, key=lambda edge: -graph.edges[edge].get("probability", 1.0))[:_PAIRS]
    if not pairs and d > 1:
        pairs = [loc.std(0).argsort(descending=True)[:2].sort().values.tolist()]
    panels = [
        (
            f"$z_{{{parent + 1}}} \\rightarrow z_{{{child + 1}}}$" if graph.has_edge(parent, child) else "no edge",
            prior[:, [parent, child]],
            posterior[:, [parent, child]],
            (parent, child),
        )
        for parent, child in pairs
    ]
    drawn = [draw_prior_posterior(panels, folder / "prior_posterior.png")] if panels else []
    shown = images.images(held_out_index(images, _SHOWN))
    rows = torch.stack([as_float(shown), model.decode(model.encode(shown).mean)])
    values = torch.linspace(-_REACH, _REACH, _STEPS)
    return [
        draw_graph(graph, 1, d, folder / "graph.png"),
        *drawn,
        draw_image_grid(
            _traversals(model, values),
            [f"$n_{{{latent + 1}}}$" for latent in range(d)],
            [f"{value:+.1f} $\\sigma$" if abs(value) > 1e-6 else "0" for value in values.tolist()],
            folder / "noise_grid.png",
            caption="the noise of one latent, in its standard deviations; that of the others is 0",
        ),
        draw_image_grid(rows, ["data", "model"], [], folder / "reconstruction.png"),
        draw_architecture(model, folder / "architecture.png"),
    ]


def _traversals(model: ImageVAE, values: Tensor) -> Tensor:
    """(d, steps, H, W, C): the noise of one latent takes the values, that of the others is 0."""
    noise = values[:, None] * torch.diag_embed(model.prior.log_sigma.exp()).unsqueeze(1)
    z = model.prior.mechanism.solve(noise.flatten(0, 1), model.prior.sample_edges())
    return model.decode(z).unflatten(0, noise.shape[:2])
