"""What a trained sprite model has learned, in numbers."""

from __future__ import annotations

from typing import Any

import torch

from causalvae_fast.data import SpriteVideos
from causalvae_fast.data.character import load_character
from causalvae_fast.metrics import linear_r2, pixel_r2, psnr, shd_within_frames
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.training.sprite_positions import PositionReader, extrapolation_errors, intervention_errors

_LAW = (-1.0, 2.0)  # coefficients of the positions two frames before and one frame before
_EDGES_IN_TEXT = 12


def true_adjacency(frames: int, latents: int) -> torch.Tensor:
    """The graph of the data, (d, d), [i, j] true where i -> j: position at t - 2 and t - 1 -> position at t.

    Slots 0 and 1 of each frame stand for x and y; the other latents have nothing to carry. The first two positions
    are independent.
    """
    d = frames * latents
    adjacency = torch.zeros(d, d, dtype=torch.bool)
    for child in range(2, frames):
        for parent in (child - 2, child - 1):
            for slot in (0, 1):
                adjacency[parent * latents + slot, child * latents + slot] = True
    return adjacency


@torch.no_grad()
def evaluate_sprites(
    model: VideoVAE, videos: SpriteVideos, character: torch.Tensor | None = None
) -> dict[str, Any]:
    """Metrics of a model on videos that it was not trained on; JSON can hold them.

    Args:
        model: a trained one.
        videos: (N, T). The first frames of each, as many as the model has, are its window; all others are
            extrapolated.
        character: RGBA (h, w, 4), what moves in them; the drawn one by default.

    Returns:
        shd: against the true graph, the least over permutations of the latents within a frame, the same at each.
        edges: of the learned graph, each with parent, child, coefficient and probability.
        coefficient_error: the largest deviation of the coefficients of the true edges from 2 and -1, relative to
            these; 1 if one of the edges is missing.
        position_latents: the two latents of a frame that carry the position in that permutation. Each may hold a
            mixture of x and y: both axes move by the same law, so that no graph tells them apart.
        position_r2: of x and y, a least-squares fit on those two latents of every frame, scored on frames that
            were not used for the fit.
        reconstruction: of the frames from the posterior means: the fraction of the pixels' variance that is
            explained, and the mean peak signal-to-noise ratio in dB.
        prediction: the same of the last frame, decoded from f(z of the frames before).
        background_alone: the same of the backgrounds in place of the frames, which the decoder is given.
        extrapolation: as from `extrapolation_errors`.
        intervention: as from `intervention_errors`.
    """
    config = model.config
    frames, latents = config.frames, config.latents
    window = SpriteVideos(videos.frames[:, :frames], videos.background, videos.positions[:, :frames])
    character = load_character() if character is None else character
    graph = model.prior.to_networkx()
    aligned = shd_within_frames(model.prior.adjacency(), true_adjacency(frames, latents), frames, latents)
    carriers = list(aligned.permutation[:2])

    z = model.encode(window.frames).mean
    each_frame = z.unflatten(1, (frames, latents))
    position_r2 = linear_r2(each_frame[..., carriers].flatten(0, 1), window.positions.flatten(0, 1))
    reader = PositionReader(carriers, each_frame, window.positions)
    truth = window.frames.float() / 255
    background = videos.background
    decoded = model.decode(z, background)
    predicted = model.extrapolate(window.frames[:, :-1], 1, background=background)
    return {
        "shd": aligned.shd,
        "edges": [
            {"parent": parent, "child": child, **attributes}
            for parent, child, attributes in graph.edges(data=True)
        ],
        "coefficient_error": _coefficient_error(graph, carriers, frames, latents),
        "position_latents": carriers,
        "position_r2": {"x": position_r2[0].item(), "y": position_r2[1].item()},
        "reconstruction": _accuracy(decoded, truth),
        "prediction": _accuracy(predicted, truth[:, -1:]),
        "background_alone": _accuracy((background.float() / 255).unsqueeze(1).expand_as(truth), truth),
        "extrapolation": extrapolation_errors(model, videos, reader, character),
        "intervention": intervention_errors(model, window, reader, character),
    }


def _coefficient_error(graph: Any, carriers: list[int], frames: int, latents: int) -> float:
    """Of a graph as from `to_networkx`; 0 if the window is too short for the law."""
    errors = [0.0]
    for child in range(2, frames):
        for before, law in zip((2, 1), _LAW, strict=True):
            for carrier in carriers:
                edge = ((child - before) * latents + carrier, child * latents + carrier)
                found = graph.edges[edge].get("coefficient", 0.0) if graph.has_edge(*edge) else 0.0
                errors.append(abs(found / law - 1))
    return max(errors)


def _accuracy(decoded: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    decoded, truth = decoded.flatten(0, 1), truth.flatten(0, 1)
    return {"pixel_r2": pixel_r2(decoded, truth), "psnr_db": psnr(decoded, truth, data_range=1.0).mean().item()}


def metrics_text(metrics: dict[str, Any], latents: int) -> str:
    """The metrics as a table for people; nodes as z(frame, latent), counted from 1 as in the figures."""

    def node(index: int) -> str:
        return f"z({index // latents + 1},{index % latents + 1})"

    r2 = metrics["position_r2"]
    edges = sorted(metrics["edges"], key=lambda edge: -edge["probability"])
    lines = [
        f"structural Hamming distance  {metrics['shd']}",
        f"edges                        {len(edges)}",
        *(
            f"  {node(edge['parent'])} -> {node(edge['child'])}  coefficient {edge['coefficient']:+.2f}  "
            f"probability {edge['probability']:.2f}"
            for edge in edges[:_EDGES_IN_TEXT]
        ),
        *([f"  and {len(edges) - _EDGES_IN_TEXT} more"] if len(edges) > _EDGES_IN_TEXT else []),
        f"R2 of position               x {r2['x']:.3f}  y {r2['y']:.3f}",
    ]
    for name in ("reconstruction", "prediction", "background_alone"):
        values = metrics[name]
        lines.append(
            f"{name.replace('_', ' '):28} pixel R2 {values['pixel_r2']:.3f}  PSNR {values['psnr_db']:.1f} dB"
        )
    for step, errors in metrics["extrapolation"].items():
        lines.append(
            f"{_frames_later(step):28} off by {errors['picture_px']:.2f} pixels, "
            f"{errors['latents_px']:.2f} by the latents"
        )
    for name, errors in metrics["intervention"].items():
        if name == "others_px":
            lines.append(f"other latents set             moves the character by {errors:.2f} pixels")
        else:
            offs = ", ".join(f"{off:.2f}" for off in errors.values())
            lines.append(f"{'moved in frame ' + name.rpartition('_')[2]:28} off by {offs} pixels, frame by frame")
    return "\n".join(lines)


def _frames_later(step: str) -> str:
    number = step.rpartition("_")[2]
    return f"extrapolated by {number} frame{'s' if number != '1' else ''}"
