"""What a training step of the two experiments is made of: how much of it the data and the KL divergence take.

    python bench/step_shares.py                       # sprites and ovals, with one thread and with two
    python bench/step_shares.py sprites --threads 1 --rounds 50

In each round one whole step of the trainer is timed (batch, forward pass, backward pass, update), and then each
part alone, on the same batch:

- data: the batch is taken from memory, and its bytes become floats;
- kl: the KL divergence and its gradients in posterior, coefficients, gates and noise, through autograd;
- gates: the relaxed edges are drawn and penalised, with their gradients; nothing where the graph is given.

Times are medians over rounds, a share is the ratio of two of them. With one thread they are the processor time of
the process, to which other programs on the machine add little; with more, time on the clock, for which the machine
must have nothing else to do. The first rounds, in which memory is touched for the first time, do not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from causalvae_fast.models.image_vae import ImageVAE
from causalvae_fast.models.video_vae import VideoVAE
from causalvae_fast.training.config import EXPERIMENTS, OvalsConfig, SpritesConfig
from causalvae_fast.training.experiment import Experiment
from causalvae_fast.training.ovals import OvalsExperiment
from causalvae_fast.training.sprites import SpritesExperiment
from causalvae_fast.training.trainer import Trainer

_UNCOUNTED = 5  # rounds
PARTS = ("data", "kl", "gates")


class Shares(NamedTuple):
    """Of the steps of one experiment."""

    step_ms: float
    parts: dict[str, tuple[float, float]]
    """Name -> time in ms, and share of the step."""


def measure(config: SpritesConfig | OvalsConfig, rounds: int) -> Shares:
    """The shares of the steps of an experiment, with as many threads as torch has."""
    experiment: Experiment = (
        SpritesExperiment(config) if isinstance(config, SpritesConfig) else OvalsExperiment(config)
    )
    torch.manual_seed(config.seed)
    experiment.make_model()
    trainer = Trainer(config, experiment, Accelerator(cpu=True))
    model = experiment.model
    assert isinstance(model, VideoVAE | ImageVAE)
    trainer.model.train()
    steps: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(_UNCOUNTED + rounds):
        index = torch.randperm(config.samples)[: config.batch_size]
        batch = experiment.batch(index, trainer.accelerator.device)
        steps.append(_seconds(lambda index=index: _step(trainer, experiment, index)))
        parts["data"].append(_seconds(lambda index=index: _floats(model, experiment, index)))
        posterior = _posterior(model, batch[0])
        parts["kl"].append(_seconds(lambda posterior=posterior: _kl(model, *posterior)))
        parts["gates"].append(0.0 if model.prior.edges is None else _seconds(lambda: _gates(model)))
    whole, *medians = (statistics.median(times[_UNCOUNTED:]) for times in (steps, *parts.values()))
    return Shares(1e3 * whole, {name: (1e3 * t, t / whole) for name, t in zip(parts, medians, strict=True)})


def _seconds(call: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    call()
    return clock() - begun


def _step(trainer: Trainer, experiment: Experiment, index: Tensor) -> None:
    trainer._update(*experiment.batch(index, trainer.accelerator.device))


def _floats(model: VideoVAE | ImageVAE, experiment: Experiment, index: Tensor) -> None:
    for bytes_ in experiment.batch(index, torch.device("cpu")):
        model.as_floats("batch", bytes_, [tuple(bytes_.shape)])


def _posterior(model: VideoVAE | ImageVAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (B, d) of a batch, as leaves that take gradients."""
    with torch.no_grad():
        q = model.encode(images).base_dist
    return q.loc.clone().requires_grad_(), q.scale.clone().requires_grad_()


def _kl(model: VideoVAE | ImageVAE, loc: Tensor, scale: Tensor) -> None:
    edges = model.prior.edges
    gates = None if edges is None else edges.probabilities().detach().requires_grad_()
    model.prior.kl(loc, scale=scale, edges=gates, reduction="mean").backward()


def _gates(model: VideoVAE | ImageVAE) -> None:
    (model.prior.sample_edges().sum() + model.prior.expected_edges()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=["sprites", "ovals"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    print("| experiment | threads | step, ms | data, ms | share | KL, ms | share | gates, ms | share |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.experiments:
        if name not in ("sprites", "ovals"):
            parser.error(f"experiments are sprites and ovals, got {name}")
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            shares = measure(EXPERIMENTS[name](), arguments.rounds)  # type: ignore[arg-type]
            cells = [f"{ms:.2f} | {100 * share:.1f} %" for ms, share in shares.parts.values()]
            print(f"| {name} | {threads} | {shares.step_ms:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
