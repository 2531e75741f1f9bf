"""The drawing of a model's architecture says what the model is."""

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import nn

from causalvae_fast.figures import _canvas
from causalvae_fast.figures.architecture import Column, describe, draw_architecture
from causalvae_fast.models.image_vae import ImageVAE, ImageVAEConfig
from causalvae_fast.models.video_vae import VideoVAE, VideoVAEConfig

MODELS = {
    "sprites": lambda: VideoVAE(),
    "ovals": lambda: ImageVAE(),
    "wide images": lambda: ImageVAE(
        ImageVAEConfig(size=35, width=50, convolutional=True, posterior="full", prior="mlp")
    ),
    "video": lambda: VideoVAE(VideoVAEConfig(size=40, convolutional=True, background=False, mechanism="mlp")),
    "video over backgrounds": lambda: VideoVAE(VideoVAEConfig(size=36, convolutional=True)),
    "isotropic": lambda: ImageVAE(ImageVAEConfig(prior="isotropic")),
    "linear": lambda: ImageVAE(ImageVAEConfig(prior="linear")),
}


def texts(column: Column) -> list[str]:
    return [" | ".join(filter(None, (b.text, b.shape, b.detail))) for row in column.rows for b in row]


def test_the_networks_of_the_sprite_experiment() -> None:
    columns = describe(VideoVAE())
    assert texts(columns["encoder"]) == [
        "frame | 20 x 20 x 3 | rows x columns x colours",
        "conv 5 x 5 | 16 x 10 x 10 | stride 2, leaky ReLU 0.01",
        "conv 3 x 3 | 16 x 10 x 10 | leaky ReLU 0.01",
        "flattened | 1600",
        "linear | 128 | leaky ReLU 0.01",
        "linear | 4 | mean; leaky ReLU 0.5",
        "linear | 4 | log std. deviation",
    ]
    assert texts(columns["background"])[1:] == ["linear | 64 | leaky ReLU 0.01", "linear | 16"]
    assert texts(columns["decoder"])[1:] == [
        "leaky ReLU 0.5 | 4",
        "joined with the background's code | 20",
        "linear | 256 | leaky ReLU 0.01",
        "linear | 256 | leaky ReLU 0.01",
        "linear | 1600",
        "picture and opacity | 20 x 20 x 4 | sigmoid",
        "frame | 20 x 20 x 3 | the picture, blended over the background",
    ]
    prior = texts(columns["prior"])
    assert prior[0] == "posterior, Gaussian | 12 | diagonal covariance; 3 frames of 4"
    assert prior[2] == "prior: z = f(z) + n | 12 | f(z) = A z + b"
    assert prior[3] == "possible edges | 48 | each with a Gumbel-softmax gate"


def test_the_networks_of_the_ovals() -> None:
    columns = describe(ImageVAE())
    hidden = "linear | 128 | leaky ReLU 0.01"
    assert texts(columns["encoder"])[1:4] == 3 * [hidden]
    decoder = ["leaky ReLU 0.5 | 5", *4 * [hidden], "linear | 4096 | sigmoid"]
    assert texts(columns["decoder"])[1:-1] == decoder
    assert texts(columns["prior"])[2:] == [
        "prior: z = f(z) + n | 5 | $f_{2} = z_{1}^2$",
        "possible edges | 1 | the graph is given",
        "noise n, Gaussian | 5 | standard deviation 1, 0.4, 1, 1, 1",
    ]
    assert "background" not in columns


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_there_with_its_size(name: str) -> None:
    model = MODELS[name]()
    columns = describe(model)
    assert sum(column.parameters for column in columns.values()) == sum(p.numel() for p in model.parameters())
    shapes = {name: [box.shape for row in column.rows for box in row] for name, column in columns.items()}
    networks = [("encoder", model.encoder), ("encoder", model.to_loc), ("decoder", model.decoder)]
    for column, network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                assert str(layer.out_features) in shapes[column]
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert any(shape.startswith(f"{layer.out_channels} x ") for shape in shapes[column])
    if hasattr(model, "to_scale_tril"):
        d = model.config.latents
        assert shapes["encoder"][-1] == str(d * (d + 1) // 2)


def test_the_size_after_a_transposed_convolution_is_the_one_that_goes_on() -> None:
    decoder = texts(describe(MODELS["wide images"]())["decoder"])
    assert "transposed conv 4 x 4 | 32 x 9 x 13 | stride 2, leaky ReLU 0.01" in decoder
    assert decoder[-2] == "transposed conv 4 x 4 | 1 x 35 x 50 | stride 2, sigmoid"


def test_another_size_gives_another_drawing() -> None:
    hidden = describe(VideoVAE(VideoVAEConfig(hidden=48, latents=3)))
    assert "linear | 48 | leaky ReLU 0.01" in texts(hidden["decoder"])
    assert texts(hidden["encoder"])[-2:] == [
        "linear | 3 | mean; leaky ReLU 0.5",
        "linear | 3 | log std. deviation",
    ]


def test_a_model_in_double_precision_is_read_without_changing_it() -> None:
    model = VideoVAE(VideoVAEConfig(channels=2, hidden=16)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    describe(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", MODELS)
def test_no_text_runs_into_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    new_figure = _canvas.new_figure

    def remembered(width: float, height: float) -> Figure:
        drawn.append(new_figure(width, height))
        return drawn[-1]

    monkeypatch.setattr(_canvas, "new_figure", remembered)
    path = draw_architecture(MODELS[name](), tmp_path / "architecture.png")
    assert imread(path).shape[1] > 1000
    (figure,) = drawn
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    for n, one in enumerate(boxes):
        for other in boxes[n + 1 :]:
            assert not one.overlaps(other)
