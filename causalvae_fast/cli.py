"""The command line: causalvae-fast train | sweep | evaluate | figures | extrapolate | select | report | doctor.

Modules that need an extra are imported by the command that needs them, so that `doctor` works without any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from causalvae_fast import __version__

if TYPE_CHECKING:
    from causalvae_fast.training.runs import Run

_INTERRUPTED = 130  # the shell's exit code for SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. What a user can mend is said in one line, without a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        if arguments[:1] == ["sweep"]:
            return _sweep(arguments[1:])
        parsed = _parser().parse_args(arguments)
        return int(parsed.command(parsed))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "causalvae_fast":
            raise
        extras = "train,sweep" if error.name == "joblib" else "train,plots"
        return _fail(f"{error.name} is not installed: pip install 'causalvae_fast[{extras}]'")
    except ImportError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (OSError, ValueError, RuntimeError) as error:
        if not _is_for_the_user(error):
            raise
        return _fail(str(error))


def _is_for_the_user(error: Exception) -> bool:
    """Files that are missing, full disks, and what the package itself says about its input."""
    return (
        isinstance(error, OSError)
        or type(error).__module__.startswith("causalvae_fast")
        or (type(error) is ValueError)
    )


def _fail(message: str) -> int:
    print(f"causalvae-fast: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causalvae-fast", description="A causal prior for variational autoencoders."
    )
    parser.add_argument("--version", action="version", version=f"causalvae_fast {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    commands.add_parser("train", help="train an experiment: `train sprites --help` lists its options")

    commands.add_parser("sweep", help="train it over values and seeds: `sweep --help` lists the options")

    evaluate = commands.add_parser("evaluate", help="metrics of a trained model, also into RUN/metrics.json")
    evaluate.set_defaults(command=_evaluate)
    figures = commands.add_parser("figures", help="draw its figures, or those of a sweep, into RUN/figures")
    figures.set_defaults(command=_figures)
    figures.add_argument(
        "--over", metavar="ENTRY", help="what a sweep is drawn against (the only one, edge_weight)"
    )
    figures.add_argument(
        "--compare", type=Path, nargs="+", default=[], metavar="RUN", help="runs to set beside it (ovals)"
    )
    extrapolate = commands.add_parser(
        "extrapolate", help="continue videos, into RUN/figures and RUN/extrapolation.npz"
    )
    extrapolate.add_argument("--steps", type=int, default=3, help="frames to predict (3)")
    extrapolate.add_argument("--samples", type=int, default=6, help="videos to draw (6)")
    extrapolate.set_defaults(command=_extrapolate)
    for command in (evaluate, figures, extrapolate):
        command.add_argument("run", type=Path, metavar="RUN", help="folder of a `causalvae-fast train`")

    select = commands.add_parser("select", help="the sparsest graph that keeps the best reconstruction")
    select.add_argument("--tolerance", type=float, metavar="T", help="in the unit of the metrics (from the seeds)")
    select.add_argument(
        "--by", nargs="+", default=[], metavar="METRIC", help="what must be kept (reconstruction, prediction)"
    )
    select.set_defaults(command=_select)
    report = commands.add_parser("report", help="runs side by side, in Markdown and HTML")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="for the report (that of a sweep, or report)")
    report.set_defaults(command=_report)
    for command in (select, report):
        command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs or of sweeps")

    doctor = commands.add_parser("doctor", help="versions, instruction set, threads, backends, and a parity check")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(command=_doctor)
    return parser


def _train(arguments: list[str]) -> int:
    from causalvae_fast.training.command import train_command
    from causalvae_fast.training.config import EXPERIMENTS

    if not arguments or arguments[0] not in EXPERIMENTS:
        wanted = arguments[0] if arguments else "nothing"
        if wanted in ("-h", "--help"):
            print(
                "usage: causalvae-fast train sprites|ovals [options]; `train sprites --help` lists them\n"
                "       causalvae-fast train images|video --data PATH [options], on your own images or videos"
            )
            return 0
        return _fail(f"train takes the name of an experiment, {', '.join(EXPERIMENTS)}, got {wanted}")
    return 0 if train_command(arguments[0], arguments[1:]) else _INTERRUPTED


def _sweep(arguments: list[str]) -> int:
    from causalvae_fast.training.sweep_command import sweep_command

    return sweep_command(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from causalvae_fast.training.evaluate import evaluate_run

    run = _load(arguments.run)
    print(evaluate_run(run)[1])
    print(f"written to {run.folder.metrics}")
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from causalvae_fast.figures.ovals import draw_oval_figures
    from causalvae_fast.figures.own_runs import draw_own_figures
    from causalvae_fast.figures.sprites import draw_sprite_figures
    from causalvae_fast.training.evaluate import held_out_sprites, ovals_parts, sprites_parts
    from causalvae_fast.training.results import is_sweep

    if is_sweep(arguments.run):
        return _sweep_figures(arguments)
    if arguments.over is not None:
        return _fail(f"--over is for the figures of a sweep, but {arguments.run} is none")
    run = _load(arguments.run)
    others = [_load(path) for path in arguments.compare] if run.experiment == "ovals" else []
    if len(others) < len(arguments.compare) or any(other.experiment != "ovals" for other in others):
        return _fail("--compare takes runs of `causalvae-fast train ovals`")
    if run.experiment == "ovals":
        paths = draw_oval_figures([ovals_parts(r) for r in (run, *others)], run.folder.figures)
    elif run.experiment in ("images", "video"):
        paths = draw_own_figures(run)
    else:
        model, config = sprites_parts(run)
        paths = draw_sprite_figures(model, held_out_sprites(config, config.model.frames + 2), run.folder.figures)
    for path in paths:
        print(path)
    return 0


def _sweep_figures(arguments: argparse.Namespace) -> int:
    from causalvae_fast.figures.sweep import draw_sweep_figures
    from causalvae_fast.training.results import read_records

    records = read_records([arguments.run])
    for path in draw_sweep_figures(records, arguments.run / "figures", arguments.over):
        print(path)
    return 0


def _select(arguments: argparse.Namespace) -> int:
    from causalvae_fast.training.results import read_records
    from causalvae_fast.training.select import select, selection_text

    if arguments.tolerance is not None and not arguments.tolerance >= 0:
        return _fail(f"--tolerance must be at least 0, got {arguments.tolerance}")
    records = read_records(arguments.runs)
    print(selection_text(records, select(records, arguments.by, arguments.tolerance)))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from causalvae_fast.training.report import write_report
    from causalvae_fast.training.results import is_sweep, read_records

    records = read_records(arguments.runs)
    alone = arguments.runs[0] if len(arguments.runs) == 1 and is_sweep(arguments.runs[0]) else Path("report")
    for path in write_report(arguments.runs, records, arguments.out or alone):
        print(path)
    return 0


def _extrapolate(arguments: argparse.Namespace) -> int:
    import numpy as np

    from causalvae_fast.data.character_position import videos_in_view
    from causalvae_fast.figures.own_runs import extrapolate_own
    from causalvae_fast.figures.sprites import continue_videos, draw_sprite_extrapolation
    from causalvae_fast.training.evaluate import held_out_sprites, sprites_parts

    if arguments.steps < 1 or arguments.samples < 1:
        return _fail(f"--steps and --samples must be at least 1, got {arguments.steps} and {arguments.samples}")
    run = _load(arguments.run)
    if run.experiment == "video":
        for path in extrapolate_own(run, arguments.steps, arguments.samples):
            print(path)
        return 0
    model, config = sprites_parts(run)
    videos = held_out_sprites(config, config.model.frames - 1 + arguments.steps)
    chosen = videos_in_view(videos.positions)[: arguments.samples]
    if len(chosen) == 0:
        return _fail(f"in none of {len(videos)} videos is the character in view for {arguments.steps} more frames")
    if len(chosen) < arguments.samples:
        print(
            f"note: in {len(chosen)} of {len(videos)} videos is the character in view for so long; drawn are these"
        )
    picture = draw_sprite_extrapolation(
        model, videos, run.folder.figures / f"extrapolation_{arguments.steps}.png", arguments.samples
    )
    np.savez_compressed(
        run.folder.extrapolation,
        truth=videos.frames[chosen].numpy(),
        predicted=continue_videos(model, videos, chosen).numpy(),
        positions=videos.positions[chosen].numpy(),
    )
    print(picture)
    print(run.folder.extrapolation)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from causalvae_fast.doctor import doctor

    return doctor(arguments.json)


def _load(path: Path) -> Run:
    from causalvae_fast.training.runs import load_run

    run = load_run(path)
    if run.step < run.steps:
        print(
            f"note: the training in {path} is not finished, it stands at step {run.step} of {run.steps}; "
            f"go on with: causalvae-fast train {run.experiment} --out {path} --resume",
            file=sys.stderr,
        )
    return run
