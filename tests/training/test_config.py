"""The configuration and its YAML."""

from pathlib import Path

import pytest

from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config import ConfigError, SpritesConfig, from_yaml, to_yaml


def test_round_trip(tmp_path: Path) -> None:
    config = SpritesConfig(
        run=Path("runs/ä"), epochs=3, kl_weight=0.25, sprite=Path("me.png"), model=VideoVAEConfig(hidden=32)
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "config.yaml") == config


def test_entries_that_are_left_out_have_their_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 5\nmodel: {hidden: 64}\n")
    config = from_yaml(tmp_path / "config.yaml")
    assert config == SpritesConfig(epochs=5, model=VideoVAEConfig(hidden=64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [", "not readable YAML"),
        ("- 1\n- 2\n", "does not hold the entries"),
        ("epochs: 5\ncolour: red\n", "unknown entries: colour"),
        ("model: {depth: 3}\n", "unknown entries: depth"),
        ("epochs: many\n", "epochs must be int, got 'many'"),
        ("epochs: true\n", "epochs must be int, got True"),
        ("epochs: 0\n", "epochs must be at least 1, got 0"),
        ("model: {latents: 0}\n", "latents must be at least 1, got 0"),
        ("experiment: ovals\nmodel: {prior: none}\n", r"prior must be .*, got 'none'"),
        ("experiment: [a]\n", r"experiment must be sprites, .*, got \['a'\]"),
        ("experiment: {a: 1}\n", r"experiment must be sprites, .*, got {'a': 1}"),
        ("!!python/object/apply:os.getcwd []\n", "not readable YAML"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        from_yaml(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration at .*config\.yaml"):
        from_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("batch_size", -1),
        ("edge_start", 1.5),
        ("noise_start", -0.1),
        ("edge_logit_bound", 0.0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        SpritesConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("size", 24), ("edge_probability", 1.0), ("temperature", 0.0)])
def test_values_of_the_model_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        SpritesConfig(model=VideoVAEConfig(**{name: value}))  # type: ignore[arg-type]
