"""The Python in the README runs, with small data in the place of the reader's."""

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalvae_fast
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig
from causalvae_fast.training import trainer

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def latents(d: int) -> dict[str, Any]:
    loc = torch.randn(6, d)
    names = {
        "d": d,
        "n": 6,
        "loc": loc,
        "scale": torch.ones(6, d),
        "z": torch.randn(6, d),
        "values": torch.ones(6),
    }
    prior = causalvae_fast.SEMPrior(causalvae_fast.LinearMechanism(d), causalvae_fast.GumbelEdges(d))
    q = torch.distributions.Normal(loc, 1.0)
    return {**vars(causalvae_fast), **names, "prior": prior, "q": q, "torch": torch}


def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(causalvae_fast, "load", lambda run: VideoVAE(VideoVAEConfig()).eval())
    frames = torch.randint(256, (2, 3, 20, 20, 3), dtype=torch.uint8)
    return {"causalvae_fast": causalvae_fast, "torch": torch, "frames": frames, "background": frames[:, 0]}


def observed() -> dict[str, Any]:
    x, noise = torch.randn(2, 200)
    return {"causalvae_fast": causalvae_fast, "X": torch.stack([x, x**2 + noise], 1)}


def own_data(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ten clips in the working folder, and a training of 4 steps."""
    folder = Path(tempfile.mkdtemp())
    monkeypatch.chdir(folder)
    np.save("clips.npy", np.random.default_rng(0).integers(0, 256, (10, 6, 8, 8, 3), dtype=np.uint8))
    whole = trainer.train
    short = {"batch_size": 8, "epochs": 1, "device": "cpu"}
    monkeypatch.setattr(trainer, "train", lambda config: whole(dataclasses.replace(config, **short)))
    return {}


# What a block calls, by which it is known, and the names that the reader has.
NEEDS: dict[str, Callable[[pytest.MonkeyPatch], dict[str, Any]]] = {
    "train(VideoConfig(": own_data,
    "prior.to_networkx(": lambda _: latents(5),
    'pivot="posterior_sample"': lambda _: latents(5),
    "TemporalMechanism(": lambda _: latents(30 * 4),
    "causalvae_fast.load(": trained,
    "causalvae_fast.discover(": lambda _: observed(),
}


def known_by(block: str) -> str | None:
    """The first of the calls that it has."""
    return next((call for call in NEEDS if call in block), None)


@pytest.mark.parametrize("call", NEEDS)
def test_a_block_runs(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (block for block in BLOCKS if known_by(block) == call)
    names = NEEDS[call](monkeypatch)
    exec(compile(block, f"README.md: {call}", "exec"), names)
    if "TemporalMechanism" in call:
        assert names["kl"].shape == (6,)
        assert names["prior"].extrapolate(names["z"], steps=10).shape == (6, 40)
    if "load" in call:
        assert names["later"].shape == (2, 3, 20, 20, 3)


def test_no_block_is_left_out() -> None:
    assert sorted(map(str, map(known_by, BLOCKS))) == sorted(NEEDS)
