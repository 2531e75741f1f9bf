"""Checkpoints: safetensors, without pickle, and never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

_FORMAT = "causalvae_fast checkpoint 1"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read; the message names the file and the remedy."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old content or the new one is there, whole.

    The content goes to a temporary file beside it, down to the disk, and then takes the name. If that fails (a
    full disk, an interrupt), the temporary file is removed and what was there before stays.

    Raises:
        OSError: if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors, and metadata that JSON can hold, to one safetensors file, atomically.

    Raises:
        OSError: if the file cannot be written; an earlier checkpoint at `path` is then untouched.
    """
    header = {"format": _FORMAT, "metadata": json.dumps(metadata)}
    # Clones: safetensors refuses tensors that share memory.
    content = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, metadata=header)
    write_atomically(path, content)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the metadata of a checkpoint.

    Raises:
        CheckpointError: if there is no such file, or if it is truncated or was written by something else.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}: train first, or again with --overwrite")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): it is truncated or foreign; "
            "remove it and train again, or put a copy in its place"
        ) from error
    if header.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} was not written by this package (format {header.get('format')!r}, expected {_FORMAT!r}): "
            "give the run folder of a `causalvae-fast train`"
        )
    return tensors, json.loads(header["metadata"])


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors that are named `prefix.name`, as `name`."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors named `parameter.key`, parameters by their number."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned; learning rates and the like stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def rng_tensors() -> dict[str, Tensor]:
    """The states of the global random number generators of this process."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Put back what `rng_tensors` returned, as far as this machine has the device."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
