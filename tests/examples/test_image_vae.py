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


def test_it_learns(example: ModuleType) -> None:
    _, losses = example.train(causal=True, steps=150)
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]


def test_the_mechanism_gets_gradients(example: ModuleType) -> None:
    prior, _ = example.train(causal=True, steps=20)
    below = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    assert bool((prior.mechanism.weight[below] != 0).all())
    assert bool((prior.edges.logits[below] != 0).all())


def test_the_first_step_is_that_of_the_isotropic_prior(example: ModuleType) -> None:
    """The prior starts as N(0, I), so the one line changes nothing before the first update."""
    _, causal = example.train(causal=True, steps=1)
    _, isotropic = example.train(causal=False, steps=1)
    assert causal == pytest.approx(isotropic, rel=1e-6)


@pytest.mark.parametrize("prior", ["causal", "isotropic"])
def test_the_script(prior: str) -> None:
    command = [sys.executable, str(EXAMPLE), "--prior", prior, "--steps", "5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "nats per image" in result.stdout
