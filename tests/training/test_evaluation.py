"""The metrics of a model: right for a model that is right, and not for one that is not."""

import pytest
import torch
from torch import Tensor

from causalvae_fast.data import SpriteVideos, make_sprites
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig
from causalvae_fast.posterior import Posterior
from causalvae_fast.training.evaluation import evaluate_sprites, metrics_text, true_adjacency

_ORDER = (2, 0)  # the latents that carry x and y


class Oracle(VideoVAE):
    """Latents 2 and 0 of each frame are x and y, scaled and mixed with an edge of 2 and one of -1 each."""

    def __init__(self, videos: SpriteVideos) -> None:
        super().__init__(VideoVAEConfig(channels=2, hidden=16))
        self.z = torch.zeros(*videos.positions.shape[:2], 4)
        for axis, latent in enumerate(_ORDER):
            self.z[..., latent] = 0.7 * videos.positions[..., axis]
        with torch.no_grad():
            assert self.prior.edges is not None
            self.prior.edges.logits.fill_(-5.0)
            for latent in _ORDER:
                for parent, coefficient in ((latent, -1.0), (4 + latent, 2.0)):
                    self.prior.edges.logits[8 + latent, parent] = 5.0
                    self.prior.mechanism.weight[8 + latent, parent] = coefficient
        self.eval()

    def posterior(self, images: Tensor) -> Posterior:
        frames = images.shape[0] // self.z.shape[0]
        loc = self.z[:, :frames].flatten(0, 1)
        return Posterior(loc, torch.ones_like(loc), None)


@pytest.fixture(scope="module")
def videos() -> SpriteVideos:
    return make_sprites(100, seed=9)


def test_true_adjacency() -> None:
    edges = true_adjacency(3, 4).nonzero().tolist()
    assert edges == [[0, 8], [1, 9], [4, 8], [5, 9]]


def test_a_perfect_model(videos: SpriteVideos) -> None:
    metrics = evaluate_sprites(Oracle(videos), videos)
    assert metrics["shd"] == 0
    assert set(metrics["position_latents"]) == set(_ORDER)
    assert len(metrics["edges"]) == 4
    coefficients = {(edge["parent"], edge["child"]): edge["coefficient"] for edge in metrics["edges"]}
    assert coefficients == {(2, 10): -1, (6, 10): 2, (0, 8): -1, (4, 8): 2}
    assert min(metrics["position_r2"].values()) > 0.999
    text = metrics_text(metrics, latents=4)
    assert "z(2,3) -> z(3,3)  coefficient +2.00" in text


def test_a_spurious_edge_and_a_missing_one_count(videos: SpriteVideos) -> None:
    model = Oracle(videos)
    with torch.no_grad():
        assert model.prior.edges is not None
        model.prior.edges.logits[9, 5] = 5.0
        model.prior.edges.logits[8, 0] = -5.0
    assert evaluate_sprites(model, videos)["shd"] == 2


def test_latents_that_carry_nothing_have_no_r2(videos: SpriteVideos) -> None:
    model = Oracle(videos)
    model.z = torch.randn_like(model.z)
    r2 = evaluate_sprites(model, videos)["position_r2"]
    assert max(r2.values()) < 0.2


def test_an_untrained_decoder_reconstructs_less_than_a_perfect_one(
    videos: SpriteVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Oracle(videos)
    untrained = evaluate_sprites(model, videos)
    truth = videos.frames.float() / 255
    monkeypatch.setattr(model, "_decode", lambda z, background: truth[:, -z.shape[1] :])
    perfect = evaluate_sprites(model, videos)
    for part in ("reconstruction", "prediction"):
        assert perfect[part]["pixel_r2"] == pytest.approx(1)
        assert untrained[part]["pixel_r2"] < 0.9
        assert untrained[part]["psnr_db"] < 30


def test_the_text_lists_the_likeliest_edges_only(videos: SpriteVideos) -> None:
    model = Oracle(videos)
    assert model.prior.edges is not None
    model.prior.edges.logits.data.clamp_(min=1.0)
    metrics = evaluate_sprites(model, videos)
    text = metrics_text(metrics, latents=4)
    assert len(metrics["edges"]) == 48
    assert text.count("coefficient") == 12
    assert text.index("z(2,3) -> z(3,3)") < text.index("probability 0.73") < text.index("and 36 more")
