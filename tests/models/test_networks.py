"""The convolutional networks fit frames of any size, and the models that are made of them."""

import pytest
import torch

from causalvae_fast.models.image_vae import ImageVAE, ImageVAEConfig
from causalvae_fast.models.networks import conv_decoder, conv_encoder
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig


@pytest.mark.parametrize("size", [(4, 4), (33, 50), (64, 64), (5, 97)])
def test_any_size_in_and_out(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    features = conv_encoder(*size, 3, 2, 16)(x)
    assert features.shape == (2, 16)
    assert conv_decoder(16, *size, 4, 2, 8)(features).shape == (2, 4, *size)


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("prior", ["linear", "mlp"])
def test_images_with_a_learned_prior(convolutional: bool, prior: str) -> None:
    config = ImageVAEConfig(
        latents=3,
        size=9,
        width=12,
        channels=3,
        hidden=8,
        conv_channels=2,
        convolutional=convolutional,
        prior=prior,
    )
    model = ImageVAE(config).train()
    x = torch.rand(6, 9, 12, 3)
    terms = model(x)
    sum(terms.named().values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert terms.named().keys() == {"reconstruction", "kl", "edges"}
    assert terms.edges.item() == pytest.approx(3 * 0.7)
    model.eval()
    assert model.decode(model.encode(x).mean).shape == x.shape
    assert model.intervene(x, {0: 1.0}).shape == x.shape


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_videos_without_backgrounds_and_of_any_size(convolutional: bool, background: bool) -> None:
    config = VideoVAEConfig(
        latents=2,
        size=9,
        width=12,
        colours=1,
        hidden=8,
        channels=2,
        convolutional=convolutional,
        background=background,
        mechanism="mlp",
    )
    model = VideoVAE(config).train()
    x, behind = torch.rand(5, 3, 9, 12, 1), torch.rand(5, 9, 12, 1) if background else None
    sum(model(x, behind).named().values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    assert model.decode(model.encode(x).mean, behind).shape == x.shape
    assert model.extrapolate(x, 2, background=behind).shape == (5, 2, 9, 12, 1)
    assert model.intervene(x, {0: 1.0}, background=behind).shape == x.shape
    message = "background is missing" if background else "background is not taken"
    with pytest.raises(ValueError, match=message):
        model.extrapolate(x, 1, background=None if background else x[:, 0])


@pytest.mark.parametrize("slope", [0.0, -0.5, float("nan")])
def test_a_slope_that_is_not_invertible_is_refused(slope: float) -> None:
    for config in (ImageVAEConfig, VideoVAEConfig):
        with pytest.raises(ValueError, match="negative_slope must be above 0"):
            config(negative_slope=slope)


def test_floats_below_0_are_refused() -> None:
    model = ImageVAE(ImageVAEConfig(size=8, hidden=8))
    with pytest.raises(ValueError, match=r"x must be uint8, or float in \[0, 1\], got floats from -1 to 1"):
        model.encode(torch.linspace(-1, 1, 64).view(1, 8, 8))


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("colours", 2), ("mechanism", "cubic"), ("mechanism_hidden", 0)]
)
def test_entries_of_videos_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        VideoVAEConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("edge_probability", 1.0), ("temperature", 0.0)])
def test_entries_of_images_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        ImageVAEConfig(**{name: value})  # type: ignore[arg-type]
