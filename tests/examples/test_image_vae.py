"""The example that puts SEMPrior into an ordinary VAE runs, learns, and starts where the ordinary VAE does."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "image_vae.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_vae", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mechanism", ["linear", "mlp"])
def test_it_learns(example: ModuleType, mechanism: str) -> None:
    _, losses = example.train(causal=True, steps=150, mechanism=mechanism)
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]


def test_the_mechanism_gets_gradients(example: ModuleType) -> None:
    prior, _ = example.train(causal=True, steps=20)
    below = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    assert bool((prior.mechanism.weight[below] != 0).all())
    assert bool((prior.edges.logits[below] != 0).all())


def test_the_networks_and_the_noise_get_gradients(example: ModuleType) -> None:
    prior, _ = example.train(causal=True, steps=20, mechanism="mlp")
    before = example.make_prior("mlp")
    assert bool((prior.log_sigma != before.log_sigma).all())
    assert bool((prior.edges.logits != before.edges.logits)[before.edges.allowed].all())
    assert prior.mechanism.mechanism.w_out.grad.count_nonzero() > 0


def test_the_first_step_is_that_of_the_isotropic_prior(example: ModuleType) -> None:
    """The prior starts as N(0, I), so the one line changes nothing before the first update."""
    _, causal = example.train(causal=True, steps=1)
    _, isotropic = example.train(causal=False, steps=1)
    assert causal == pytest.approx(isotropic, rel=1e-6)


def test_the_script() -> None:
    command = [sys.executable, str(EXAMPLE), "--steps", "5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "nats per image" in result.stdout


@pytest.mark.parametrize(
    "options", [("--prior", "causal"), ("--mechanism", "mlp"), ("--prior", "isotropic")], ids=" ".join
)
def test_options_of_the_script(
    example: ModuleType,
    options: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *options, "--steps", "5"])
    example.main()
    printed = capsys.readouterr().out
    assert "nats per image" in printed
    assert ("edges found" in printed) == (options != ("--prior", "isotropic"))
