"""Sweeps: one experiment over values of its configuration and seeds, with joblib as the engine.

What has been done stands in the run folders and nowhere else, so that a sweep goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from causalvae_fast.training.checkpoint import write_atomically
from causalvae_fast.training.config import ConfigError, TrainConfig, from_yaml, to_yaml
from causalvae_fast.training.config_fields import differing, parse_value, with_values
from causalvae_fast.training.evaluate import evaluate_run
from causalvae_fast.training.results import FAILED, FINISHED, NOT_BEGUN, PART_DONE, as_csv, read_records, state_of
from causalvae_fast.training.runs import RunFolder, RunFolderError, load_run
from causalvae_fast.training.trainer import train

_INTERRUPTED = "interrupted"
_NOT_SWEPT = {"run": "--out", "seed": "--seeds", "device": "--device"}


class SweepError(RuntimeError):
    """A sweep cannot go on; the message says why and how to continue."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where the runs are trained."""

    jobs: int = 1
    """Runs at a time; -1 for one on each core, or each CPU of a Ray cluster."""
    threads: int | None = None
    """Of each run; None for the cores of this machine over `jobs`, or 1 with Ray."""
    backend: str = "loky"
    """loky: processes on this machine. ray: a Ray cluster, or a local one where there is none."""
    gpus: float = 0.0
    """Of each run, with Ray, which hides the GPUs from what does not ask for them."""

    def __post_init__(self) -> None:
        if self.backend not in ("loky", "ray"):
            raise ConfigError(f"backend must be loky or ray, got {self.backend!r}")
        if self.jobs != -1 and self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1, or -1 for as many as there are cores, got {self.jobs}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if self.gpus < 0 or (self.gpus > 0 and self.backend != "ray"):
            raise ConfigError(f"gpus must be at least 0, and is for the backend ray alone, got {self.gpus:g}")

    @property
    def threads_of_a_run(self) -> int:
        """It must not depend on how many runs are left, or a resumed sweep would round differently."""
        if self.threads is not None:
            return self.threads
        if self.backend == "ray" or self.jobs == -1:
            return 1
        return max(1, int(cpu_count()) // self.jobs)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, joblib works as this says."""
        options: dict[str, Any] = {}
        if self.backend == "ray":
            try:
                from ray.util.joblib import register_ray
            except ModuleNotFoundError as error:
                raise ImportError("the backend ray needs Ray: pip install 'causalvae_fast[train,ray]'") from error
            register_ray()
            options = {"ray_remote_args": {"num_gpus": self.gpus}} if self.gpus else {}
        with parallel_config(backend=self.backend, n_jobs=self.jobs, **options):
            yield


class PlannedRun(NamedTuple):
    """A run of a sweep."""

    name: str
    config: TrainConfig


def parse_grid(base: TrainConfig, settings: Sequence[str]) -> dict[str, list[Any]]:
    """Entry -> values, of settings such as `edge_weight=0.1,1,10`.

    Raises:
        ConfigError: if a setting is not of this form, if there is no such entry, or if values are missing, twice
            there or of another kind.
    """
    grid: dict[str, list[Any]] = {}
    for setting in settings:
        name, equals, texts = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"a setting must be ENTRY=VALUE,VALUE,..., got {setting!r}")
        if name in _NOT_SWEPT:
            raise ConfigError(f"{name} is not swept by a setting: {_NOT_SWEPT[name]} says it")
        values = [parse_value(base, name, text.strip()) for text in texts.split(",") if text.strip()]
        if not values:
            raise ConfigError(f"the setting of {name} has no values: give {name}=VALUE,VALUE,...")
        if name in grid or len(set(values)) < len(values):
            raise ConfigError(f"{name} has the same value twice, or two settings, in {' '.join(settings)}")
        grid[name] = values
    return grid


def plan(base: TrainConfig, grid: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> list[PlannedRun]:
    """The runs of a sweep, all combinations of values and seeds, in sub-folders of `base.run`.

    Raises:
        ConfigError: if there are no values of an entry, or no seeds, or the configuration refuses a combination.
    """
    empty = [name for name, values in {**grid, "seeds": seeds}.items() if len(values) == 0]
    if empty:
        raise ConfigError(f"the grid is empty: there are no values of {', '.join(empty)}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be different ones, got {', '.join(map(str, seeds))}")
    runs = []
    for values in itertools.product(*grid.values(), seeds):
        settings = dict(zip([*grid, "seed"], values, strict=True))
        name = ",".join(f"{entry}={_text(value)}" for entry, value in settings.items())
        try:
            config = with_values(base, settings | {"run": base.run.resolve() / name})
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
        runs.append(PlannedRun(name, config))
    return runs


def sweep(
    base: TrainConfig,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    engine: Engine | None = None,
    *,
    retry: bool = False,
    say: Callable[[str], None] = print,
) -> bool:
    """Train and evaluate all runs of a sweep that are not finished, and write results.csv into its folder.

    A run that was interrupted goes on from its checkpoint. One that fails leaves its error in error.txt, and the
    others go on; it is tried again only if `retry`.

    Args:
        base: what all runs have in common; `base.run` is the folder of the sweep.
        grid: values of entries of the configuration, by their dotted names.
        seeds: of the runs.
        engine: where they are trained; one after the other, in this process, by default.
        retry: try failed runs again, from their last checkpoint.
        say: gets what a person is told, line by line.

    Returns:
        Whether all runs are finished: False if some have failed.

    Raises:
        ConfigError: if the grid is empty, a combination cannot be, or the folder has a sweep of another base.
        RunFolderError: if the folder holds a run.
        SweepError: if a process is killed from outside.
        KeyboardInterrupt: on Ctrl-C; the runs at hand then have their checkpoints.
    """
    engine = engine or Engine()
    runs = plan(base, grid, seeds)
    _claim(base)
    states = {run.name: state_of(RunFolder(run.config.run)) for run in runs}
    wanted = (NOT_BEGUN, PART_DONE, FAILED) if retry else (NOT_BEGUN, PART_DONE)
    todo = [run for run in runs if states[run.name] in wanted]
    counts = [f"{n} {state}" for state in (FINISHED, PART_DONE, FAILED, NOT_BEGUN) if (n := _count(states, state))]
    say(f"{len(runs)} runs in {base.run}: {', '.join(counts)}")
    done = len(runs) - len(todo)
    with engine.active():
        # Ray's backend gives all results at the end.
        order = "list" if engine.backend == "ray" else "generator_unordered"
        try:
            outcomes = Parallel(return_as=order, batch_size=1)(
                delayed(train_one)(run, engine.threads_of_a_run) for run in todo
            )
            for name, state in outcomes:
                if state == _INTERRUPTED:
                    raise KeyboardInterrupt
                done += 1
                states[name] = state
                say(f"[{done}/{len(runs)}] {name}  {state}")
                _write_results(base.run)
        except BrokenProcessPool as error:
            raise SweepError(
                "a process in which a run was trained was killed, perhaps for lack of memory: the same command "
                "goes on, with a lower --jobs if memory is short"
            ) from error
    _write_results(base.run)
    failed = [name for name, state in states.items() if state == FAILED]
    if failed:
        say(f"{len(failed)} failed, with their errors in error.txt of their folders; --retry tries them again:")
        for name in failed:
            say(f"  {name}")
    say(f"written to {base.run / 'results.csv'}")
    return not failed


def train_one(run: PlannedRun, threads: int) -> tuple[str, str]:
    """Train a run to the end and evaluate it, with so many threads; what it says goes to its train.log.

    Returns:
        Its name and its state: finished, failed or interrupted.
    """
    folder = RunFolder(run.config.run)
    folder.path.mkdir(parents=True, exist_ok=True)
    for left_over in folder.path.glob(".*.tmp"):  # of a process that was killed while it wrote
        left_over.unlink()
    folder.error.unlink(missing_ok=True)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with folder.log.open("a", buffering=1) as log, redirect_stdout(log):
            resume = folder.checkpoint.exists()
            if not train(run.config, resume=resume, overwrite=not resume):
                return run.name, _INTERRUPTED
            print(evaluate_run(load_run(folder.path))[1])
    except Exception as error:
        if not folder.config.exists():
            write_atomically(folder.config, to_yaml(run.config).encode())
        write_atomically(folder.error, f"{_line(error)}\n\n{traceback.format_exc()}".encode())
        return run.name, FAILED
    finally:
        torch.set_num_threads(threads_before)
    return run.name, FINISHED


def _claim(base: TrainConfig) -> None:
    """Write what the runs have in common into sweep.yaml, or require that it says the same."""
    path = base.run / "sweep.yaml"
    if RunFolder(base.run).config.exists():
        raise RunFolderError(f"{base.run} holds a run: give another folder with --out")
    if path.exists():
        stored = from_yaml(path)
        if type(stored) is not type(base):
            raise ConfigError(f"{base.run} holds a sweep of another experiment: give another folder with --out")
        entries = differing(base, dataclasses.replace(stored, seed=base.seed))
        if entries:
            raise ConfigError(
                f"the sweep in {base.run} was begun otherwise, asked for is {', '.join(entries)}: "
                "leave that out, or give another folder with --out"
            )
        return
    base.run.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_yaml(base).encode())


def _write_results(folder: Path) -> None:
    records = read_records([folder])
    write_atomically(folder / "results.csv", as_csv(records).encode())


def _count(states: Mapping[str, str], state: str) -> int:
    return sum(found == state for found in states.values())


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _text(value: Any) -> str:
    """A value as part of the name of a folder."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return quote(str(value), safe=" +")
