"""What a model of the user's own images or videos has learned, in numbers, without any ground truth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from causalvae_fast.data import UserImages, UserVideos
from causalvae_fast.data.user_videos import as_float
from causalvae_fast.metrics import pixel_r2, psnr
from causalvae_fast.models.base import CausalVAE
from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.posterior import Posterior, concatenated, parameters_of
from causalvae_fast.training.prior_distance import prior_distance

_MOST = 2000  # samples that are evaluated, evenly chosen of those that are held out
_MOST_NUMBERS = 2**26  # pixels and colours of these, in all
_CHUNK = 100  # samples in the networks at once
_LEAST_COMPARED = 4  # what a classifier takes
_EDGES_IN_TEXT = 12


@torch.no_grad()
def evaluate_images(model: ImageVAE, images: UserImages, seed: int = 0) -> dict[str, Any]:
    """Metrics of a model on the images that are held out, at most 2,000, or fewer large ones; JSON can hold them.

    Returns:
        held_out: how many images these are.
        edges: of the learned graph, each with parent, child, probability, and coefficient if it is linear.
        expected_edges: the sum of the probabilities of all edges.
        kl: the divergence of the posteriors from the prior, in nats; the mean.
        latent_std: of the posterior means of each latent, over images: near 0 where a latent is not used.
        reconstruction: from the posterior means: the fraction of the pixels' variance that is explained (None if
            nothing varies), and the mean peak signal-to-noise ratio in dB.
        mean_image: the same of the mean of all these images in place of the reconstruction.
        prior_distance: see `prior_distance`; None below 4 images.
    """
    index = held_out_index(images, _most(math.prod(images.shape)))
    posteriors, decoded, truth = [], [], []
    for chunk in index.split(_CHUNK):
        batch = images.images(chunk)
        q = model.encode(batch)
        posteriors.append(parameters_of(q))
        decoded.append(model.decode(q.mean))
        truth.append(as_float(batch))
    seen = torch.cat(truth)
    return {
        "held_out": len(index),
        **_of_prior(model, concatenated(posteriors), model.config.latents, seed),
        "reconstruction": accuracy(torch.cat(decoded), seen),
        "mean_image": accuracy(seen.mean(0).expand_as(seen), seen),
    }


@torch.no_grad()
def evaluate_video(model: VideoVAE, videos: UserVideos, seed: int = 0) -> dict[str, Any]:
    """Metrics of a model on windows that are held out, at most 2,000, or fewer large ones; JSON can hold them.

    Returns:
        As `evaluate_images`, of windows and their frames (latent_std of the k latents of a frame), without
        mean_image, and:
        prediction: accuracy of the last frame, decoded from f(z of the frames before).
        frame_before: the same of the frame before it in its place.
        background_alone: accuracy of the backgrounds in place of all frames, if the model has any.
    """
    windows, backgrounds = videos.held_out_windows(_most(videos.frames * math.prod(videos.shape)))
    posteriors, decoded, predicted = [], [], []
    for chunk in torch.arange(len(windows)).split(_CHUNK):
        batch, behind = windows[chunk], None if backgrounds is None else backgrounds[chunk]
        q = model.encode(batch)
        posteriors.append(parameters_of(q))
        decoded.append(model.decode(q.mean, behind))
        predicted.append(model.extrapolate(batch[:, :-1], 1, background=behind))
    seen = as_float(windows)
    metrics = {
        "held_out": len(windows),
        **_of_prior(model, concatenated(posteriors), model.config.latents, seed),
        "reconstruction": accuracy(torch.cat(decoded).flatten(0, 1), seen.flatten(0, 1)),
        "prediction": accuracy(torch.cat(predicted)[:, 0], seen[:, -1]),
        "frame_before": accuracy(seen[:, -2], seen[:, -1]),
    }
    if backgrounds is not None:
        alone = as_float(backgrounds).unsqueeze(1).expand_as(seen)
        metrics["background_alone"] = accuracy(alone.flatten(0, 1), seen.flatten(0, 1))
    return metrics


def held_out_index(images: UserImages, most: int) -> Tensor:
    """Numbers (n,) of held-out images, evenly chosen if there are more than `most`."""
    place = torch.linspace(0, len(images.held_out) - 1, min(most, len(images.held_out)))
    return images.held_out[place.long()]


def _most(numbers: int) -> int:
    """Samples of so many pixels and colours that are evaluated."""
    return max(_LEAST_COMPARED, min(_MOST, _MOST_NUMBERS // numbers))


def _of_prior(model: CausalVAE, q: Posterior, latents: int, seed: int) -> dict[str, Any]:
    prior = model.prior
    generator = torch.Generator().manual_seed(seed)
    return {
        "edges": [
            {"parent": parent, "child": child, **attributes}
            for parent, child, attributes in prior.to_networkx().edges(data=True)
        ],
        "expected_edges": prior.expected_edges().item(),
        "kl": prior.kl(q.loc, scale=q.scale, scale_tril=q.scale_tril).mean().item(),
        "latent_std": q.loc.reshape(-1, latents).std(0, correction=0).tolist(),
        "prior_distance": (prior_distance(prior, q, generator, seed) if len(q.loc) >= _LEAST_COMPARED else None),
    }


def accuracy(decoded: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Pixel R2 and mean PSNR in dB; None where it is not a number."""
    values = {"pixel_r2": pixel_r2(decoded, truth), "psnr_db": psnr(decoded, truth, data_range=1.0).mean().item()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def own_text(metrics: dict[str, Any], latents: int, frames: int = 1) -> str:
    """The metrics as a table for people; nodes as z(frame, latent), or z(latent), counted from 1 as in figures."""

    def node(index: int) -> str:
        return f"z({index // latents + 1},{index % latents + 1})" if frames > 1 else f"z({index + 1})"

    def edge(entry: dict[str, Any]) -> str:
        coefficient = f"coefficient {entry['coefficient']:+.2f}  " if "coefficient" in entry else ""
        arrow = f"{node(entry['parent'])} -> {node(entry['child'])}"
        return f"  {arrow}  {coefficient}probability {entry['probability']:.2f}"

    edges = sorted(metrics["edges"], key=lambda entry: -entry["probability"])
    distance = metrics["prior_distance"]
    lines = [
        f"held out                     {metrics['held_out']} {'windows' if frames > 1 else 'images'}",
        f"edges                        {len(edges)}  (expected {metrics['expected_edges']:.2f})",
        *map(edge, edges[:_EDGES_IN_TEXT]),
        *([f"  and {len(edges) - _EDGES_IN_TEXT} more"] if len(edges) > _EDGES_IN_TEXT else []),
        "std of each latent           " + "  ".join(f"{value:.2f}" for value in metrics["latent_std"]),
        f"KL divergence                {metrics['kl']:.2f} nats",
        "prior against posterior      "
        + (
            "too few held-out samples"
            if distance is None
            else f"sliced Wasserstein {distance['sliced_wasserstein']:.3f} (chance "
            f"{distance['sliced_wasserstein_of_chance']:.3f})  classifier {distance['classifier']:.3f}"
        ),
    ]
    for name in ("reconstruction", "mean_image", "prediction", "frame_before", "background_alone"):
        if name in metrics:
            r2, decibel = (
                "none" if value is None else f"{value:{form}}"
                for value, form in zip(metrics[name].values(), (".3f", ".1f"), strict=True)
            )
            lines.append(f"{name.replace('_', ' '):28} pixel R2 {r2}  PSNR {decibel} dB")
    return "\n".join(lines)
