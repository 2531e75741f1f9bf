"""The image VAE: what goes in and out, what the loss is made of, and what a shut latent says."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from causalvae_fast.models.image_vae import ImageVAE, ImageVAEConfig

SMALL = ImageVAEConfig(size=8, hidden=16)


@pytest.fixture
def model() -> ImageVAE:
    return ImageVAE(SMALL).eval()


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_encode_and_decode(model: ImageVAE) -> None:
    x = images(6, 8, 8)
    posterior = model.encode(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((6,), (5,))
    torch.testing.assert_close(model.encode(x.unsqueeze(-1).float() / 255).mean, posterior.mean)
    decoded = model.decode(posterior.mean)
    assert decoded.shape == (6, 8, 8, 1)
    assert bool(((decoded >= 0) & (decoded <= 1)).all())


def test_colours() -> None:
    model = ImageVAE(ImageVAEConfig(size=8, hidden=16, channels=3))
    assert model.decode(model.encode(images(2, 8, 8, 3)).mean).shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, 8, 3\), got"):
        model.encode(images(2, 8, 8))


def test_the_terms_are_those_of_the_elbo(model: ImageVAE) -> None:
    x = images(6, 8, 8)
    torch.manual_seed(3)
    terms = model(x)
    torch.manual_seed(3)
    q = model.encode(x)
    z = q.mean + q.stddev * torch.randn(6, 5)
    expected = (model.decode(z).squeeze(-1) - x / 255).square().sum((1, 2)).mean()
    torch.testing.assert_close(terms.reconstruction, expected)
    torch.testing.assert_close(terms.kl, model.prior.kl(q).mean())


def test_a_full_posterior_and_a_learned_variance() -> None:
    model = ImageVAE(dataclasses.replace(SMALL, posterior="full", likelihood="gaussian"))
    x = images(6, 8, 8)
    torch.manual_seed(3)
    terms = model(x)
    torch.manual_seed(3)
    q = model.encode(x)
    assert isinstance(q, MultivariateNormal)
    pixels = Normal(model.decode(q.rsample()).squeeze(-1), model.likelihood.log_scale.exp())
    torch.testing.assert_close(terms.reconstruction, -pixels.log_prob(x / 255).sum((1, 2)).mean())
    torch.testing.assert_close(terms.kl, model.prior.kl(q).mean())
    (terms.reconstruction + terms.kl).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("option", ["posterior", "likelihood"])
def test_an_option_that_is_not_there_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be .* or .*, got 'none'"):
        ImageVAEConfig(**{option: "none"})  # type: ignore[arg-type]


def test_a_shut_latent_is_what_its_parents_predict(model: ImageVAE) -> None:
    """The loss is then that of a decoder that sees z1 and z1^2 alone."""
    x = images(6, 8, 8)
    torch.manual_seed(3)
    terms = model(x, torch.tensor([1.0, 0, 0, 0, 0]))
    torch.manual_seed(3)
    q = model.encode(x)
    z1 = (q.mean + q.stddev * torch.randn(6, 5))[:, :1]
    z = torch.cat([z1, z1.square(), torch.zeros(6, 3)], 1)
    expected = (model.decode(z).squeeze(-1) - x / 255).square().sum((1, 2)).mean()
    torch.testing.assert_close(terms.reconstruction, expected)


def test_all_open_is_the_whole_model(model: ImageVAE) -> None:
    x = images(6, 8, 8)
    torch.manual_seed(3)
    whole = model(x)
    torch.manual_seed(3)
    torch.testing.assert_close(model(x, torch.ones(5)).reconstruction, whole.reconstruction)


def test_the_isotropic_prior_is_the_standard_normal() -> None:
    model = ImageVAE(ImageVAEConfig(size=8, hidden=16, prior="isotropic"))
    q = model.encode(images(6, 8, 8))
    torch.testing.assert_close(
        model.prior.kl(q), kl_divergence(q, Independent(Normal(torch.zeros(5), torch.ones(5)), 1))
    )


def test_an_intervention_reaches_the_child(model: ImageVAE) -> None:
    x = images(3, 8, 8)
    z = model.encode(x).mean
    changed = z.clone()
    changed[:, 0] = 1.5
    changed[:, 1] += 1.5**2 - z[:, 0] ** 2
    torch.testing.assert_close(model.intervene(x, {0: 1.5}), model.decode(changed))


def test_encoder_ends_and_decoder_starts_with_a_leaky_relu(model: ImageVAE) -> None:
    """The condition of identifiability."""
    assert isinstance(model.to_loc[-1], torch.nn.LeakyReLU)
    assert isinstance(model.decoder[0], torch.nn.LeakyReLU)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 0), ("encoder_layers", 0), ("prior", "cubic"), ("child_noise", 0.0), ("latents", 1)],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        ImageVAEConfig(**{name: value})  # type: ignore[arg-type]


def test_decode_names_a_wrong_shape(model: ImageVAE) -> None:
    with pytest.raises(ValueError, match=r"z must have shape \(N, 5\), got \(2, 4\)"):
        model.decode(torch.zeros(2, 4))
