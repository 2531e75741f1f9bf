"""The training loop, with Accelerate as its engine: one process, or many under torchrun."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from causalvae_fast.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_tensors,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from causalvae_fast.training.config import ConfigError, ImagesConfig, TrainConfig, VideoConfig, experiment_name
from causalvae_fast.training.experiment import Experiment
from causalvae_fast.training.images import ImagesExperiment
from causalvae_fast.training.ovals import OvalsExperiment
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import RunFolder, load_weights
from causalvae_fast.training.sprites import SpritesExperiment
from causalvae_fast.training.video import VideoExperiment

_EXPERIMENTS: dict[str, Callable[[Any], Experiment]] = {
    experiment.name: experiment
    for experiment in (SpritesExperiment, OvalsExperiment, ImagesExperiment, VideoExperiment)
}


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> bool:
    """Train an experiment into its run folder.

    After every epoch, and on an interrupt, a checkpoint is written from which `resume` continues; on the CPU, bit
    for bit as if there had been no interruption.

    Returns:
        True when the training is complete, False when it was interrupted.

    Raises:
        ConfigError: if the device is not there, there are fewer samples than one step takes, or the run to resume
            has another configuration; only its folder and its device may differ.
        RunFolderError: if the folder holds a run and neither `resume` nor `overwrite` is given, or none to resume.
        CheckpointError: if the checkpoint to resume from cannot be used.
    """
    accelerator = _accelerator(config.device)
    folder = RunFolder(config.run)
    # Before the folder is touched: what is wrong with the user's images must not cost an earlier run.
    experiment = _EXPERIMENTS[experiment_name(config)](config)
    config = experiment.config
    if resume:
        folder.require_config(config)
    set_seed(config.seed)
    experiment.make_model()
    trainer = Trainer(config, experiment, accelerator)
    if resume:
        trainer.restore(folder.checkpoint)
        if accelerator.is_main_process and isinstance(config, ImagesConfig | VideoConfig):
            folder.write_config(config)  # the data may have moved
    else:
        if accelerator.is_main_process:
            folder.create(config, overwrite)
        set_seed(config.seed, device_specific=True)
    accelerator.wait_for_everyone()
    complete = trainer.run(folder)
    # A process that exits with the group still open may abort, and torchrun then stops the one that still writes.
    accelerator.wait_for_everyone()
    # The wrapped model goes before the group that it holds: the last to let go of the group joins its threads, and
    # the model would do that with the interpreter locked, which one of them may be waiting for.
    del trainer
    accelerator.free_memory()
    accelerator.end_training()
    return complete


def _accelerator(device: str) -> Accelerator:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"device {device!r} is not available here: use --device auto or cpu")
    accelerator = Accelerator(cpu=device == "cpu")
    if device not in ("auto", accelerator.device.type):
        raise ConfigError(f"device {device!r} was asked for, but Accelerate chose {accelerator.device.type!r}")
    return accelerator


class Trainer:
    """A model, its optimizer and the step it has come to."""

    def __init__(self, config: TrainConfig, experiment: Experiment, accelerator: Accelerator) -> None:
        self.config = config
        self.experiment = experiment
        self.accelerator = accelerator
        self.step = 0
        self.plain_model = experiment.model
        self.steps_per_epoch = config.samples // (config.batch_size * accelerator.num_processes)
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"{config.samples} samples are fewer than one step takes "
                f"({config.batch_size} in each of {accelerator.num_processes} processes): lower --batch-size"
            )
        self.steps = config.epochs * self.steps_per_epoch
        self.plain_optimizer = experiment.optimizer()
        self.rates = {group["name"]: group["lr"] for group in self.plain_optimizer.param_groups}
        self.model, self.optimizer = accelerator.prepare(self.plain_model, self.plain_optimizer)

    def run(self, folder: RunFolder) -> bool:
        """Train to the end (True) or to an interrupt (False); either way with a checkpoint in the folder."""
        config, accelerator = self.config, self.accelerator
        first = accelerator.is_main_process
        with ExitStack() as stack:
            report = stack.enter_context(ProgressReport(self.steps, self.step, first))
            if self.step == self.steps:
                report.say(f"the run in {folder.path} is complete: it has done its {self.steps} steps")
                return True
            # What an interrupted run logged after its checkpoint is dropped; step `self.step` itself is in both.
            writer = SummaryWriter(folder.tensorboard, purge_step=self.step + 1) if first else None
            if writer is not None:
                stack.callback(writer.close)
            interrupted = stack.enter_context(_interrupt_flag())
            report.say(self._introduction())
            self.model.train()
            stopped = False
            while self.step < self.steps and not stopped:
                epoch = self.step // self.steps_per_epoch
                sums: dict[str, float] = {}
                begun = self.step
                for batch in self._batches(epoch):
                    terms = self._update(*batch)
                    if not math.isfinite(terms["loss"]):
                        raise TrainingError(
                            f"the loss became {terms['loss']} in step {self.step + 1}: lower --learning-rate. "
                            f"A checkpoint of an epoch before, if there was one, is in {folder.path}"
                        )
                    self.step += 1
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + value
                        if writer is not None and self.step % 10 == 0:
                            writer.add_scalar(f"train/{name}", value, self.step)
                    report.update(self.step, epoch, terms)
                    stopped = self._in_any_process(interrupted())
                    if stopped:
                        break
                if not stopped:
                    report.epoch(epoch, config.epochs, {n: s / (self.step - begun) for n, s in sums.items()})
                self.save(folder.checkpoint)
                if stopped and self.step < self.steps:
                    report.say(
                        f"interrupted after step {self.step} of {self.steps}; continue with: "
                        f"causalvae-fast train {self.experiment.name} --out {folder.path} --resume"
                    )
                if self.step == self.steps:
                    report.say(
                        f"complete: the run is in {folder.path}; see what it learned with: "
                        f"causalvae-fast evaluate {folder.path}; causalvae-fast figures {folder.path}"
                    )
        return self.step == self.steps

    def _in_any_process(self, interrupted: bool) -> bool:
        """Whether one of the processes was interrupted: all of them stop after the same step."""
        if self.accelerator.num_processes == 1:
            return interrupted
        flag = torch.tensor(float(interrupted), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of this process, from the current step to the end of the epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(self.config.samples, generator=generator)
        accelerator, size = self.accelerator, self.config.batch_size
        for index in range(self.step % self.steps_per_epoch, self.steps_per_epoch):
            start = (index * accelerator.num_processes + accelerator.process_index) * size
            yield self.experiment.batch(order[start : start + size], accelerator.device)

    def _update(self, *batch: Tensor) -> dict[str, float]:
        """One step of the optimizer; the terms of the loss."""
        experiment, progress = self.experiment, self.step / self.steps
        for group in self.plain_optimizer.param_groups:
            group["lr"] = self.rates[group["name"]] * experiment.rate(group["name"], self.step, self.steps)
        terms = experiment.terms(self.model, batch, progress)
        loss = experiment.loss(terms, progress)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        experiment.after_step()
        named = {"loss": loss, **terms.named()}
        values = torch.stack([value.detach() for value in named.values()])
        return dict(zip(named, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _introduction(self) -> str:
        accelerator = self.accelerator
        return (
            f"{self.experiment.introduction()}\n"
            f"{self.steps} steps of {self.config.batch_size} x {accelerator.num_processes} on {accelerator.device}"
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint of everything that `restore` needs."""
        random = gather_object([rng_tensors()])
        if not self.accelerator.is_main_process:
            return
        tensors = {
            **with_prefix("model", self.plain_model.state_dict()),
            **with_prefix("optimizer", optimizer_tensors(self.plain_optimizer)),
        }
        for rank, states in enumerate(random):
            tensors |= with_prefix(f"random.{rank}", states)
        save_checkpoint(path, tensors, {"step": self.step, "steps": self.steps, "processes": len(random)})

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: if it cannot be used.
            ConfigError: if it was written by another number of processes.
        """
        tensors, metadata = load_checkpoint(path)
        processes = self.accelerator.num_processes
        if metadata["processes"] != processes:
            raise ConfigError(
                f"{path} was written by {metadata['processes']} processes: resume with as many, not {processes}"
            )
        load_weights(self.plain_model, without_prefix("model", tensors), path)
        restore_optimizer(self.plain_optimizer, without_prefix("optimizer", tensors))
        restore_rng(without_prefix(f"random.{self.accelerator.process_index}", tensors))
        self.step = metadata["step"]


@contextmanager
def _interrupt_flag() -> Iterator[Interrupted]:
    """Within it, the first Ctrl-C only sets a flag, so that a step is never cut; the second one interrupts."""
    flag = Interrupted()
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if flag.raised:
            raise KeyboardInterrupt
        flag.raised = True

    try:
        signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not in the main thread, where no signal arrives
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


class Interrupted:
    """Whether Ctrl-C was pressed."""

    raised = False

    def __call__(self) -> bool:
        return self.raised
