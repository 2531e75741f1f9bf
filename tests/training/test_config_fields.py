"""Entries of a configuration by their dotted names."""

from pathlib import Path

import pytest

from causalvae_fast.models.video_vae import VideoVAEConfig
from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.config_fields import differing, field_values, parse_value, with_values
from causalvae_fast.training.ovals_config import OvalsConfig


def test_values_by_dotted_names() -> None:
    values = field_values(SpritesConfig(epochs=3, model=VideoVAEConfig(hidden=8)))
    assert (values["epochs"], values["model.hidden"]) == (3, 8)
    assert "model" not in values


def test_other_values() -> None:
    config = SpritesConfig(model=VideoVAEConfig(channels=2))
    changed = with_values(config, {"epochs": 3, "model.hidden": 8, "model.latents": 2})
    assert changed == SpritesConfig(epochs=3, model=VideoVAEConfig(channels=2, hidden=8, latents=2))
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        with_values(config, {"epochs": 0})


def test_differences_are_in_words() -> None:
    stored = SpritesConfig(run=Path("a"), device="cpu", epochs=2)
    assert differing(SpritesConfig(run=Path("b"), epochs=2), stored) == []
    assert differing(SpritesConfig(epochs=3, sprite=Path("x.png")), stored) == [
        "epochs = 3 (the run has 2)",
        "sprite = x.png (the run has None)",
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("edge_weight", "1e-3", 0.001),
        ("edge_weight", "3", 3.0),
        ("epochs", "4", 4),
        ("model.hidden", "64", 64),
        ("model.learn_log_sigma", "False", False),
        ("sprite", "none", None),
        ("sprite", "me.png", Path("me.png").resolve()),
    ],
)
def test_a_text_gives_a_value_of_the_kind_of_the_entry(name: str, text: str, value: object) -> None:
    parsed = parse_value(SpritesConfig(), name, text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_text_entry_takes_texts() -> None:
    assert parse_value(OvalsConfig(), "model.prior", "isotropic") == "isotropic"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("edge_wieght", "1", "edge_wieght is no entry of the configuration: did you mean edge_weight"),
        ("hidden", "1", r"hidden is no entry of the configuration: did you mean model\.hidden\?"),
        ("zzz", "1", "zzz is no entry of the configuration: there are run, samples, epochs"),
        ("model", "1", "model is no entry of the configuration"),
        ("edge_weight", "much", "edge_weight must be float, got 'much'"),
        ("epochs", "1.5", "epochs must be int, got '1.5'"),
        ("model.learn_log_sigma", "1", "model.learn_log_sigma must be bool, got '1'"),
    ],
)
def test_what_cannot_be_is_named(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_value(SpritesConfig(), name, text)
