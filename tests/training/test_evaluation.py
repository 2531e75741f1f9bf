"""The metrics of a model: right for a model that is right, and not for one that is not."""

import pytest
import torch
from torch import Tensor

from causalvae_fast.data import SpriteVideos, make_sprites
from causalvae_fast.data.character import load_character
from causalvae_fast.data.character_position import in_view
from causalvae_fast.data.sprites import render
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig
from causalvae_fast.posterior import Posterior
from causalvae_fast.training.evaluation import evaluate_sprites, metrics_text, true_adjacency

_ORDER = (2, 0)  # the latents that carry x and y


class Oracle(VideoVAE):
    """Latents 2 and 0 of each frame are x and y, scaled and mixed with an edge of 2 and one of -1 each."""

    def __init__(self, videos: SpriteVideos) -> None:
        super().__init__(VideoVAEConfig(channels=2, hidden=16))
        self.z = torch.zeros(*videos.positions.shape[:2], 4)
        self.number = {frame.numpy().tobytes(): n for n, frame in enumerate(videos.frames.flatten(0, 1))}
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
        frames = (images.movedim(1, -1) * 255).round().to(torch.uint8)
        loc = self.z.flatten(0, 1)[[self.number[frame.numpy().tobytes()] for frame in frames]]
        return Posterior(loc, torch.ones_like(loc), None)

    def draw(self, z: Tensor, background: Tensor) -> Tensor:
        """What `_decode` would give if the decoder were perfect."""
        position = z[..., list(_ORDER)].flatten(0, 1) / 0.7
        behind = background.repeat_interleave(z.shape[1], 0)
        return render(load_character(), behind, position).unflatten(0, z.shape[:2])


@pytest.fixture(scope="module")
def videos() -> SpriteVideos:
    return make_sprites(60, seed=9)


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
    assert metrics["coefficient_error"] == 0
    assert min(metrics["position_r2"].values()) > 0.999
    text = metrics_text(metrics, latents=4)
    assert "z(2,3) -> z(3,3)  coefficient +2.00" in text


def test_a_spurious_edge_and_a_missing_one_count(videos: SpriteVideos) -> None:
    model = Oracle(videos)
    with torch.no_grad():
        assert model.prior.edges is not None
        model.prior.edges.logits[9, 5] = 5.0
        model.prior.edges.logits[8, 0] = -5.0
        model.prior.mechanism.weight[10, 2] = -1.2
    metrics = evaluate_sprites(model, videos)
    assert metrics["shd"] == 2
    assert metrics["coefficient_error"] == 1
    with torch.no_grad():
        model.prior.edges.logits[8, 0] = 5.0
    assert evaluate_sprites(model, videos)["coefficient_error"] == pytest.approx(0.2)


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
    monkeypatch.setattr(model, "_decode", model.draw)
    perfect = evaluate_sprites(model, videos)
    for part in ("reconstruction", "prediction"):
        assert perfect[part]["pixel_r2"] == pytest.approx(1, abs=1e-4)
        assert untrained[part]["pixel_r2"] < 0.9
        assert untrained[part]["psnr_db"] < 30


def test_a_perfect_model_puts_the_character_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_sprites(60, 5, seed=9)
    model = Oracle(videos)
    monkeypatch.setattr(model, "_decode", model.draw)
    metrics = evaluate_sprites(model, videos)
    assert list(metrics["extrapolation"]) == ["step_1", "step_2", "step_3"]
    # What is seen is found to 1/40 of a pixel on each axis.
    assert max(off for step in metrics["extrapolation"].values() for off in step.values()) < 0.05
    moved = [metrics["intervention"][f"set_in_frame_{t}"] for t in (1, 2, 3)]
    assert max(off for errors in moved for off in errors.values()) < 0.05
    assert metrics["intervention"]["others_px"] == 0
    text = metrics_text(metrics, latents=4)
    assert "extrapolated by 1 frame      off by 0.0" in text
    assert "moved in frame 2             off by 0.0" in text


def test_wrong_coefficients_put_the_character_where_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_sprites(60, 5, seed=9)
    model = Oracle(videos)
    monkeypatch.setattr(model, "_decode", model.draw)
    with torch.no_grad():
        model.prior.mechanism.weight[10, 6] = 1.0  # from frame 2 to frame 3, where it should be 2: of x alone
        model.prior.mechanism.weight[10, 2] = 0.0
    metrics = evaluate_sprites(model, videos)
    stays = in_view(videos.positions).all(1)
    expected = (videos.positions[stays, 2, 0] - videos.positions[stays, 1, 0]).abs().mean().item()
    for off in metrics["extrapolation"]["step_1"].values():
        assert off == pytest.approx(expected, abs=0.05)
    moved = metrics["intervention"]["set_in_frame_2"]
    assert moved["frame_1_px"] < 0.05
    assert moved["frame_2_px"] < 0.05
    assert moved["frame_3_px"] == pytest.approx(1, abs=0.05)  # 2 pixels of 4, in half of the moves


def test_an_edge_too_many_moves_the_character_with_other_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_sprites(60, 5, seed=9)
    model = Oracle(videos)
    model.z[..., 1] = torch.randn(60, 5)
    monkeypatch.setattr(model, "_decode", model.draw)
    assert evaluate_sprites(model, videos)["intervention"]["others_px"] < 0.05
    with torch.no_grad():
        assert model.prior.edges is not None
        model.prior.edges.logits[10, 5] = 5.0
        model.prior.mechanism.weight[10, 5] = 0.7
    assert evaluate_sprites(model, videos)["intervention"]["others_px"] > 0.05


def test_a_character_that_is_never_in_view_has_no_place() -> None:
    videos = make_sprites(60, 5, seed=9)
    videos.positions += 30
    metrics = evaluate_sprites(Oracle(videos), videos)
    assert metrics["extrapolation"] == metrics["intervention"] == {}
    assert "extrapolated" not in metrics_text(metrics, latents=4)


def test_the_text_lists_the_likeliest_edges_only(videos: SpriteVideos) -> None:
    model = Oracle(videos)
    assert model.prior.edges is not None
    model.prior.edges.logits.data.clamp_(min=1.0)
    metrics = evaluate_sprites(model, videos)
    text = metrics_text(metrics, latents=4)
    assert len(metrics["edges"]) == 48
    assert text.count("coefficient") == 12
    assert text.index("z(2,3) -> z(3,3)") < text.index("probability 0.73") < text.index("and 36 more")
