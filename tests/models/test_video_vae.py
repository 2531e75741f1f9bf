"""The video VAE: what goes in and out, what the loss is made of, and how it extrapolates."""

import dataclasses

import pytest
import torch
from torch import Tensor

from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig

SMALL = VideoVAEConfig(channels=2, hidden=16)


@pytest.fixture
def model() -> VideoVAE:
    return VideoVAE(SMALL).eval()


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 20, 20, 3), dtype=torch.uint8)


def test_encode_gives_a_posterior_per_sample(model: VideoVAE) -> None:
    window = images(5, 3)
    posterior = model.encode(window)
    assert posterior.batch_shape == (5,)
    assert posterior.event_shape == (12,)
    one_frame = model.encode(window[:, 1])
    assert one_frame.event_shape == (4,)
    torch.testing.assert_close(posterior.mean[:, 4:8], one_frame.mean)  # the encoder is shared by the frames
    torch.testing.assert_close(posterior.stddev[:, 4:8], one_frame.stddev)


def test_a_full_posterior_is_full_within_a_frame() -> None:
    model = VideoVAE(dataclasses.replace(SMALL, posterior="full", likelihood="bernoulli"))
    window, background = images(5, 3), images(5)
    covariance = model.encode(window).covariance_matrix
    torch.testing.assert_close(covariance[:, 4:8, 4:8], model.encode(window[:, 1]).covariance_matrix)
    assert not covariance[:, 4:8, :4].any()
    assert bool((covariance[:, 4:8, 4:8].tril(-1) != 0).any())
    terms = model(window, background)
    (terms.reconstruction + terms.prediction + terms.kl + terms.edges).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_bytes_and_floats_are_the_same_images(model: VideoVAE) -> None:
    x = images(4)
    torch.testing.assert_close(model.encode(x).mean, model.encode(x.float() / 255).mean)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_decode_any_number_of_frames(model: VideoVAE, frames: int) -> None:
    decoded = model.decode(torch.randn(3, 4 * frames), images(3))
    assert decoded.shape == (3, frames, 20, 20, 3)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_decoder_is_shared_by_the_frames(model: VideoVAE) -> None:
    z, background = torch.randn(3, 8), images(3)
    torch.testing.assert_close(model.decode(z, background)[:, 1:], model.decode(z[:, 4:], background))


def test_encoder_ends_and_decoder_starts_with_a_leaky_relu() -> None:
    """The condition of identifiability."""
    model = VideoVAE(SMALL)
    assert isinstance(model.to_loc[-1], torch.nn.LeakyReLU)
    assert isinstance(model.decoder_start, torch.nn.LeakyReLU)


def test_extrapolation_follows_the_mechanism(model: VideoVAE) -> None:
    """With edges of 2 and -1, as in uniform motion, the latents go on in steps of equal size."""
    with torch.no_grad():
        model.prior.mechanism.weight.zero_()
        assert model.prior.edges is not None
        for k in range(4):
            model.prior.mechanism.weight[8 + k, k] = -1
            model.prior.mechanism.weight[8 + k, 4 + k] = 2
        model.prior.edges.logits.fill_(4.0)
        x, background = images(3, 3), images(3)
        z = model.encode(x).mean.unflatten(1, (3, 4))
        expected = torch.stack([z[:, 2] + step * (z[:, 2] - z[:, 1]) for step in (1, 2, 3)], dim=1)
        frames = model.extrapolate(x, steps=3, background=background)
        torch.testing.assert_close(frames, model.decode(expected.flatten(1), background))
        # Only the last two frames are needed.
        torch.testing.assert_close(frames, model.extrapolate(x[:, 1:], steps=3, background=background))


@pytest.mark.parametrize("redraw", [False, True])
def test_intervention_on_a_window(model: VideoVAE, redraw: bool) -> None:
    """do() on a latent of the second frame leaves the first one, and moves the third."""
    with torch.no_grad():
        model.prior.mechanism.weight.normal_()
        x, background = images(3, 3), images(3)
        z = model.encode(x).mean
        do = {5: torch.tensor([1.0, 2.0, 3.0]), 6: 0.5}
        torch.manual_seed(2)
        frames = model.intervene(x, do, background=background, redraw=redraw)
        torch.manual_seed(2)
        expected = (model.prior.intervene if redraw else model.prior.counterfactual)(z, do)
        torch.testing.assert_close(frames, model.decode(expected, background))
        as_it_was = model.decode(z, background)
        torch.testing.assert_close(frames[:, 0], as_it_was[:, 0])
        assert not torch.equal(frames[:, 2], as_it_was[:, 2])


def test_errors_of_interventions(model: VideoVAE) -> None:
    x, background = images(2, 3), images(2)
    with pytest.raises(ValueError, match="x must have 3 frames, got 2"):
        model.intervene(x[:, :2], {0: 1.0}, background=background)
    with pytest.raises(ValueError, match="do names node 12, but the nodes are 0 to 11"):
        model.intervene(x, {12: 1.0}, background=background)


def test_the_loss_terms_are_what_they_say() -> None:
    """With a posterior of no spread the loss can be put together from encode, decode and the prior."""
    model = VideoVAE(SMALL).eval()  # in evaluation the gates are 0 or 1, not drawn
    with torch.no_grad():
        model.to_log_scale.weight.zero_()
        model.to_log_scale.bias.fill_(-20.0)  # clamped to -8
        x, background = images(6, 3), images(6)
        terms = model(x, background)
        q = model.encode(x)
        truth = x.float() / 255
        decoded = model.decode(q.mean, background)
        predicted = model.extrapolate(x[:, :2], 1, background=background)
        error = (decoded - truth).square().flatten(1).sum(1).mean()
        torch.testing.assert_close(terms.reconstruction, error, rtol=1e-3, atol=0)
        error = (predicted - truth[:, 2:]).square().flatten(1).sum(1).mean()
        torch.testing.assert_close(terms.prediction, error, rtol=1e-3, atol=0)
        torch.testing.assert_close(terms.kl, model.prior.kl(q).mean())
        torch.testing.assert_close(terms.edges, model.prior.expected_edges())


def test_every_parameter_gets_a_gradient() -> None:
    """Under torchrun, a parameter without one would stop the training."""
    model = VideoVAE(SMALL).train()
    terms = model(images(4, 3), images(4))
    sum(terms.named().values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("shape", [(4, 20, 3), (4, 20, 21, 3), (4, 20, 20, 4), (20, 20, 3), (1, 2, 3, 20, 20, 3)])
def test_encode_names_a_wrong_shape(model: VideoVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must have shape"):
        model.encode(torch.zeros(shape))


def test_wrong_dtypes_are_named(model: VideoVAE) -> None:
    with pytest.raises(ValueError, match=r"x must be uint8, or float in \[0, 1\], got torch.int64"):
        model.encode(torch.zeros(2, 20, 20, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="background must be uint8"):
        model.decode(torch.zeros(2, 4), torch.zeros(2, 20, 20, 3, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (2, 0), (2, 3, 4)])
def test_decode_names_a_wrong_shape(model: VideoVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="z must have shape"):
        model.decode(torch.zeros(shape), images(2))


def test_extrapolate_names_what_does_not_fit(model: VideoVAE) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        model.extrapolate(images(2, 3), 0, background=images(2))
    with pytest.raises(ValueError, match="x must have at least 2 frames, got 1"):
        model.extrapolate(images(2, 1), background=images(2))


def test_floats_that_are_bytes_are_refused(model: VideoVAE) -> None:
    images = torch.randint(0, 256, (2, 3, 20, 20, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"x must be uint8, or float in \[0, 1\], got floats from 0 to 25"):
        model.encode(images.float())
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        model.encode([images])  # type: ignore[arg-type]
