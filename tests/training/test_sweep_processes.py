"""Sweeps in other processes: joblib's on this machine, and Ray's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from causalvae_fast.training.config import SpritesConfig
from causalvae_fast.training.sweep import Engine, sweep

MakeConfig = Callable[..., SpritesConfig]


def results(folder: Path) -> str:
    return (folder / "results.csv").read_text()


@pytest.fixture
def local_ray() -> Iterator[None]:
    """Ray on this machine, with two CPUs."""
    ray = pytest.importorskip("ray")
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # it gives itself 30 seconds, and raises just this
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "ray"])
def test_other_processes_come_to_the_same(tiny: MakeConfig, request: pytest.FixtureRequest, backend: str) -> None:
    """Bit for bit: with as many threads, it does not matter where a run is trained."""
    if backend == "ray":
        request.getfixturevalue("local_ray")
    said: list[str] = []
    other = tiny("other", samples=24, batch_size=8, epochs=1)
    assert sweep(other, {}, [0, 1], Engine(jobs=2, threads=1, backend=backend), say=said.append)
    assert sorted(line.split("  ")[-1] for line in said if line.startswith("[")) == ["finished", "finished"]
    here = tiny("here", samples=24, batch_size=8, epochs=1)
    assert sweep(here, {}, [0, 1], Engine(threads=1))
    assert results(other.run) == results(here.run)
