"""Folders of sweeps whose runs nobody has trained: configurations and metrics are written as they are wanted."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalvae_fast.training.config import SpritesConfig, to_yaml
from causalvae_fast.training.config_fields import with_values


def write_run(
    folder: Path,
    settings: dict[str, Any] | None = None,
    *,
    edges: int = 4,
    shd: int = 0,
    reconstruction: float = 34.0,
    prediction: float = 30.0,
    state: str = "finished",
) -> Path:
    """A run of the sprite experiment with such metrics; settings change its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = with_values(SpritesConfig(run=folder), settings or {})
    (folder / "config.yaml").write_text(to_yaml(config))
    metrics = {
        "step": 10,
        "steps": 10,
        "shd": shd,
        "edges": [{"parent": 0, "child": 8, "coefficient": 1.0, "probability": 0.9}] * edges,
        "position_latents": [0, 1],
        "reconstruction": {"psnr_db": reconstruction, "pixel_r2": 0.9},
        "prediction": {"psnr_db": prediction, "pixel_r2": 0.8},
        "background_alone": {"psnr_db": 16.3, "pixel_r2": 0.5},
    }
    if state == "finished":
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if state == "failed":
        (folder / "error.txt").write_text("TrainingError: the loss became nan\n\nTraceback\n")
    return folder


def write_sweep(folder: Path, runs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Path:
    """A sweep; of each run its settings, among them its seed, and its metrics."""
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(to_yaml(dataclasses.replace(SpritesConfig(), run=folder)))
    for settings, metrics in runs:
        write_run(folder / ",".join(f"{name}={value}" for name, value in settings.items()), settings, **metrics)
    return folder
