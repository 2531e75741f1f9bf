"""A training that takes a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config import SpritesConfig


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., SpritesConfig]:
    """A configuration of 2 epochs of 4 steps, in the folder tmp_path / run; keyword arguments change it."""

    def make(run: str = "run", **changes: Any) -> SpritesConfig:
        defaults: dict[str, Any] = {"samples": 64, "batch_size": 16, "epochs": 2, "device": "cpu"}
        model = VideoVAEConfig(channels=2, hidden=16)
        return SpritesConfig(run=tmp_path / run, model=model, **(defaults | changes))

    return make
