"""The command line: causalvae-fast train | evaluate | figures | extrapolate | doctor.

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
        parsed = _parser().parse_args(arguments)
        return int(parsed.command(parsed))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "causalvae_fast":
            raise
        return _fail(f"{error.name} is not installed: pip install 'causalvae_fast[train,plots]'")
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

    evaluate = commands.add_parser("evaluate", help="metrics of a trained model, also into RUN/metrics.json")
    evaluate.set_defaults(command=_evaluate)
    figures = commands.add_parser("figures", help="draw its figures into RUN/figures")
    figures.set_defaults(command=_figures)
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

    doctor = commands.add_parser("doctor", help="versions, instruction set, threads, backends, and a parity check")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(command=_doctor)
    return parser


def _train(arguments: list[str]) -> int:
    from causalvae_fast.training.command import train_command

    if arguments[:1] not in (["sprites"], ["ovals"]):
        wanted = arguments[0] if arguments else "nothing"
        if wanted in ("-h", "--help"):
            print("usage: causalvae-fast train sprites|ovals [options]; `train sprites --help` lists them")
            return 0
        return _fail(f"train takes the name of an experiment, sprites or ovals, got {wanted}")
    return 0 if train_command(arguments[0], arguments[1:]) else _INTERRUPTED


def _evaluate(arguments: argparse.Namespace) -> int:
    from causalvae_fast.training.evaluate import evaluate_run

    run = _load(arguments.run)
    print(evaluate_run(run)[1])
    print(f"written to {run.folder.metrics}")
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from causalvae_fast.figures.ovals import draw_oval_figures
    from causalvae_fast.figures.sprites import draw_sprite_figures
    from causalvae_fast.training.evaluate import held_out_sprites, ovals_parts, sprites_parts

    run = _load(arguments.run)
    others = [_load(path) for path in arguments.compare] if run.experiment == "ovals" else []
    if len(others) < len(arguments.compare) or any(other.experiment != "ovals" for other in others):
        return _fail("--compare takes runs of `causalvae-fast train ovals`")
    if run.experiment == "ovals":
        paths = draw_oval_figures([ovals_parts(r) for r in (run, *others)], run.folder.figures)
    else:
        model, config = sprites_parts(run)
        paths = draw_sprite_figures(model, held_out_sprites(config, config.model.frames + 2), run.folder.figures)
    for path in paths:
        print(path)
    return 0


def _extrapolate(arguments: argparse.Namespace) -> int:
    import numpy as np

    from causalvae_fast.figures.sprites import continue_videos, draw_sprite_extrapolation, in_view
    from causalvae_fast.training.evaluate import held_out_sprites, sprites_parts

    if arguments.steps < 1 or arguments.samples < 1:
        return _fail(f"--steps and --samples must be at least 1, got {arguments.steps} and {arguments.samples}")
    run = _load(arguments.run)
    model, config = sprites_parts(run)
    videos = held_out_sprites(config, config.model.frames - 1 + arguments.steps)
    chosen = in_view(videos)[: arguments.samples]
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
