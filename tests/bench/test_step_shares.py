"""The parts of a training step are timed for both experiments."""

import pytest
from step_shares import PARTS, measure

from causalvae_fast.models.image_vae import ImageVAEConfig
from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config import OvalsConfig, SpritesConfig

CONFIGS = {
    "sprites": SpritesConfig(samples=64, batch_size=16, model=VideoVAEConfig(channels=2, hidden=16)),
    "ovals": OvalsConfig(samples=64, batch_size=16, model=ImageVAEConfig(hidden=8)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_has_a_share_of_the_step(name: str) -> None:
    shares = measure(CONFIGS[name], rounds=3)
    assert tuple(shares.parts) == PARTS
    assert shares.step_ms > 0
    for part, (ms, share) in shares.parts.items():
        given = name == "ovals" and part == "gates"  # no gates where the graph is given
        assert (ms == share == 0) if given else (ms > 0 and share > 0)
