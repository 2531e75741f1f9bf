"""The training loop, with Accelerate as its engine: one process, or many under torchrun."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from causalvae_fast.data import SpriteVideos, make_sprites
from causalvae_fast.models.video_vae import VideoTerms, VideoVAE
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
from causalvae_fast.training.config import ConfigError, SpritesConfig
from causalvae_fast.training.progress import ProgressReport
from causalvae_fast.training.runs import RunFolder, load_weights

_WARM_UP_STEPS = 100
_DECAY = 0.4  # fraction of the training over which the learning rates fall to zero


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


def train(config: SpritesConfig, *, resume: bool = False, overwrite: bool = False) -> bool:
    """Train the sprite experiment into its run folder.

    After every epoch, and on an interrupt, a checkpoint is written from which `resume` continues; on the CPU, bit
    for bit as if there had been no interruption.

    Returns:
        True when the training is complete, False when it was interrupted.

    Raises:
        ConfigError: if the device is not there or there are fewer samples than one step takes.
        RunFolderError: if the folder holds a run and neither `resume` nor `overwrite` is given.
        CheckpointError: if the checkpoint to resume from cannot be used.
    """
    accelerator = _accelerator(config.device)
    folder = RunFolder(config.run)
    # Before the folder is touched: what is wrong with the user's images must not cost an earlier run.
    videos = make_sprites(
        config.samples,
        config.model.frames,
        seed=config.seed,
        sprite=config.sprite,
        backgrounds=config.backgrounds,
    )
    set_seed(config.seed)
    model = VideoVAE(config.model)
    trainer = Trainer(config, model, accelerator)
    if resume:
        trainer.restore(folder.checkpoint)
    else:
        if accelerator.is_main_process:
            folder.create(config, overwrite)
        set_seed(config.seed, device_specific=True)
    accelerator.wait_for_everyone()
    complete = trainer.run(folder, videos)
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

    def __init__(self, config: SpritesConfig, model: VideoVAE, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self.plain_model = model
        self.steps_per_epoch = config.samples // (config.batch_size * accelerator.num_processes)
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"{config.samples} samples are fewer than one step takes "
                f"({config.batch_size} in each of {accelerator.num_processes} processes): lower --batch-size"
            )
        self.steps = config.epochs * self.steps_per_epoch
        groups = _parameter_groups(model, config)
        self.rates = {group["name"]: group["lr"] for group in groups}
        self.plain_optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.model, self.optimizer = accelerator.prepare(model, self.plain_optimizer)

    def run(self, folder: RunFolder, videos: SpriteVideos) -> bool:
        """Train to the end (True) or to an interrupt (False); either way with a checkpoint in the folder."""
        config, accelerator = self.config, self.accelerator
        first = accelerator.is_main_process
        writer = SummaryWriter(folder.tensorboard, purge_step=self.step) if first else None
        with ProgressReport(self.steps, self.step, first) as report, _interrupt_flag() as interrupted:
            if self.step == self.steps:
                report.say(f"the run in {folder.path} is complete: it has done its {self.steps} steps")
                return True
            report.say(_introduction(config, accelerator, self.steps))
            self.model.train()
            stopped = False
            while self.step < self.steps and not stopped:
                epoch = self.step // self.steps_per_epoch
                sums: dict[str, float] = {}
                begun = self.step
                for batch in self._batches(epoch, videos):
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
                        f"causalvae-fast train sprites --out {folder.path} --resume"
                    )
        if writer is not None:
            writer.close()
        return self.step == self.steps

    def _in_any_process(self, interrupted: bool) -> bool:
        """Whether one of the processes was interrupted: all of them stop after the same step."""
        if self.accelerator.num_processes == 1:
            return interrupted
        flag = torch.tensor(float(interrupted), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _batches(self, epoch: int, videos: SpriteVideos) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames and backgrounds of this process, from the current step to the end of the epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(videos), generator=generator)
        accelerator, size = self.accelerator, self.config.batch_size
        for index in range(self.step % self.steps_per_epoch, self.steps_per_epoch):
            start = (index * accelerator.num_processes + accelerator.process_index) * size
            chosen = order[start : start + size]
            yield videos.frames[chosen].to(accelerator.device), videos.background[chosen].to(accelerator.device)

    def _update(self, frames: Tensor, background: Tensor) -> dict[str, float]:
        """One step of the optimizer; the terms of the loss."""
        config = self.config
        for group in self.plain_optimizer.param_groups:
            waits = group["name"] == "noise" and self.step < config.noise_start * self.steps
            group["lr"] = 0.0 if waits else self.rates[group["name"]] * _schedule(self.step, self.steps)
        terms: VideoTerms = self.model(frames, background)
        loss = self._loss(terms)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        assert self.plain_model.prior.edges is not None
        with torch.no_grad():
            self.plain_model.prior.edges.logits.clamp_(-config.edge_logit_bound, config.edge_logit_bound)
        named = {"loss": loss, **terms.named()}
        values = torch.stack([value.detach() for value in named.values()])
        return dict(zip(named, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _loss(self, terms: VideoTerms) -> Tensor:
        config = self.config
        edge_weight = config.edge_weight if self.step >= config.edge_start * self.steps else 0.0
        return (
            config.reconstruction_weight * terms.reconstruction
            + config.prediction_weight * terms.prediction
            + config.kl_weight * terms.kl
            + edge_weight * terms.edges
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


def _parameter_groups(model: VideoVAE, config: SpritesConfig) -> list[dict[str, Any]]:
    """Named groups of parameters, each with its learning rate."""
    prior = model.prior
    assert prior.edges is not None
    noise = [prior.log_sigma] if isinstance(prior.log_sigma, nn.Parameter) else []
    groups = {
        "edges": (list(prior.edges.parameters()), config.edge_learning_rate),
        "mechanism": (list(prior.mechanism.parameters()), config.mechanism_learning_rate),
        "noise": (noise, config.mechanism_learning_rate),
    }
    special = {id(p) for parameters, _ in groups.values() for p in parameters}
    groups["networks"] = ([p for p in model.parameters() if id(p) not in special], config.learning_rate)
    return [{"name": name, "params": params, "lr": rate} for name, (params, rate) in groups.items() if params]


def _schedule(step: int, steps: int) -> float:
    """Factor on the learning rates: a short rise, a plateau, a linear fall."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS, max(0.02, (1 - step / steps) / _DECAY))


def _introduction(config: SpritesConfig, accelerator: Accelerator, steps: int) -> str:
    return (
        f"sprites: {config.samples} videos, {steps} steps of {config.batch_size} x {accelerator.num_processes} "
        f"on {accelerator.device}, seed {config.seed}\n"
        f"loss = {config.reconstruction_weight:g} reconstruction + {config.prediction_weight:g} prediction "
        f"+ {config.kl_weight:g} kl + {config.edge_weight:g} edges (from {config.edge_start:.0%} of the steps on)"
    )


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
