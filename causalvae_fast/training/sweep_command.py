"""`causalvae-fast sweep`: its options, and what it says when it is interrupted."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from causalvae_fast.training.command import parse_config
from causalvae_fast.training.config import EXPERIMENTS, ConfigError
from causalvae_fast.training.sweep import Engine, parse_grid, sweep

_INTERRUPTED = 130  # the shell's exit code for SIGINT


def sweep_command(arguments: Sequence[str]) -> int:
    """Sweep as the options say; the exit code, 1 if runs have failed.

    Raises:
        ConfigError: if an option cannot be.
    """
    options, rest = _parser().parse_known_args(list(arguments))
    if any(argument.split("=")[0] == "--seed" for argument in rest):
        raise ConfigError("--seed is of a single run: give --seeds")
    engine = Engine(options.jobs, options.threads, options.backend, options.gpus)
    base = dataclasses.replace(parse_config(options.experiment, rest), run=options.out)
    grid = parse_grid(base, options.settings)
    try:
        complete = sweep(base, grid, options.seeds, engine, retry=options.retry)
    except KeyboardInterrupt:
        command = shlex.join(["causalvae-fast", "sweep", *arguments])
        print(f"interrupted; what is done is kept, and the same command goes on:\n  {command}", file=sys.stderr)
        return _INTERRUPTED
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causalvae-fast sweep",
        usage="causalvae-fast sweep EXPERIMENT --out FOLDER [--seeds S ...] [--set ENTRY=V,V,... ...] [options]",
        description="Train an experiment for all combinations of values and seeds, each in its own run folder. "
        "The same command goes on after an interrupt. All options of `causalvae-fast train EXPERIMENT` but "
        "--seed hold for every run.",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS, metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--out", "--run", type=Path, required=True, metavar="FOLDER", help="of the sweep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="of the runs (0)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="ENTRY=V,V,...",
        help="values of an entry of config.yaml, one inside another by its dotted name, such as "
        "model.hidden=64,128; may be given several times",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, -1 for one a core (1)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each run (cores / jobs; 1 with ray)")
    parser.add_argument("--retry", action="store_true", help="try failed runs again")
    parser.add_argument(
        "--backend", choices=("loky", "ray"), default="loky", help="processes here, or a Ray cluster (loky)"
    )
    parser.add_argument("--gpus", type=float, default=0.0, metavar="G", help="of each run, with ray (0)")
    return parser
