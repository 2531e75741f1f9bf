"""What a model trained on the ovals has learned, in numbers."""

from __future__ import annotations

from typing import Any

import torch

from causalvae_fast.data import OvalImages
from causalvae_fast.metrics import leakage, linear_r2, mcc, pixel_r2
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.posterior import Posterior, concatenated, parameters_of
from causalvae_fast.training.prior_distance import prior_distance

_CHUNK = 2048  # images encoded at once
_COMPARED = 4000  # samples of the prior and of the aggregate posterior


@torch.no_grad()
def encode_ovals(model: ImageVAE, ovals: OvalImages) -> Posterior:
    """Of the latents (N, d) of all images."""
    chunks = torch.arange(len(ovals)).split(_CHUNK)
    return concatenated([parameters_of(model.encode(ovals.images(chunk))) for chunk in chunks])


@torch.no_grad()
def evaluate_ovals(model: ImageVAE, ovals: OvalImages, seed: int = 0) -> dict[str, Any]:
    """Metrics of a model on all images; JSON can hold them.

    Returns:
        mcc: mean |correlation| of x and y with the latents that are matched to them.
        position_latents: those two latents.
        correlations: of x and of y with its latent.
        spearman: the same of ranks.
        mcc_all: of x, y, scale and rotation, matched together. No latent can be a linear function of rotation,
            which is a circle.
        r2: of x, y, scale and rotation (mean over sine and cosine of twice the angle), linear in all latents.
        leakage: the largest response of another latent to position, relative to the smaller of the two.
        response: of each latent to position (`metrics.leakage`).
        prior_distance: between samples of the prior and of the aggregate posterior: the sliced Wasserstein
            distance, the same between two sets of the prior (what chance alone gives), and the held-out accuracy
            of a classifier between the two.
        reconstruction: fraction of the pixels' variance that the posterior means explain.
    """
    posterior = encode_ovals(model, ovals)
    loc = posterior.loc
    factors = ovals.factors
    aligned = mcc(loc, factors[:, :2])
    carriers = aligned.assignment
    angle = 2 * factors[:, 3:]
    r2 = linear_r2(loc, torch.cat([factors[:, :3], angle.cos(), angle.sin()], 1), seed)
    leaked = leakage(loc, factors[:, :2], carriers)

    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(loc), generator=generator)[:_COMPARED]
    images = ovals.images(chosen).unsqueeze(-1).float() / 255
    return {
        "mcc": aligned.mcc,
        "position_latents": list(carriers),
        "correlations": dict(zip("xy", aligned.correlations.tolist(), strict=True)),
        "spearman": mcc(loc, factors[:, :2], "spearman").mcc,
        "mcc_all": mcc(loc, factors).mcc,
        "r2": {
            "x": r2[0].item(),
            "y": r2[1].item(),
            "scale": r2[2].item(),
            "rotation": r2[3:].mean().item(),
        },
        "leakage": leaked.leakage,
        "response": leaked.response.tolist(),
        "prior_distance": prior_distance(model.prior, posterior.chosen(chosen), generator, seed),
        "reconstruction": pixel_r2(model.decode(loc[chosen]), images),
    }


def ovals_text(metrics: dict[str, Any]) -> str:
    """The metrics as a table for people; latents counted from 1, as in the figures."""
    distance, r2 = metrics["prior_distance"], metrics["r2"]
    latents = " and ".join(f"z{latent + 1}" if latent >= 0 else "none" for latent in metrics["position_latents"])
    return "\n".join(
        [
            f"MCC of x and y               {metrics['mcc']:.3f}  in {latents}",
            "R2 from all latents          " + "  ".join(f"{name} {value:.3f}" for name, value in r2.items()),
            f"leakage of position          {metrics['leakage']:.3f}",
            f"prior against posterior      sliced Wasserstein {distance['sliced_wasserstein']:.3f} (chance "
            f"{distance['sliced_wasserstein_of_chance']:.3f})  classifier {distance['classifier']:.3f}",
            f"reconstruction               pixel R2 {metrics['reconstruction']:.3f}",
        ]
    )
