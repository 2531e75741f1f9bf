"""Sweeps in other processes: joblib's on this machine, and Ray's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from causalvae_fast.training.config import SpritesConfig
from causalvae_fast.training.sweep import Engine, sweep

MakeConfig = Callable[..., SpritesConfig]


def results(folder: Path) -> str:
    return (folder / "results.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "ray"])
def test_other_processes_come_to_the_same(tiny: MakeConfig, backend: str) -> None:
    """Bit for bit: with as many threads, it does not matter where a run is trained."""
    if backend == "ray":
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        said: list[str] = []
        other = tiny("other", epochs=1)
        assert sweep(other, {}, [0, 1], Engine(jobs=2, threads=1, backend=backend), say=said.append)
    finally:
        if backend == "ray":
            ray.shutdown()
    assert sorted(line.split("  ")[-1] for line in said if line.startswith("[")) == ["finished", "finished"]
    here = tiny("here", epochs=1)
    assert sweep(here, {}, [0, 1], Engine(threads=1))
    assert results(other.run) == results(here.run)
