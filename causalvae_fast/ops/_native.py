"""The compiled modules, loaded when they are first needed, and what they do beside kernels."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from causalvae_fast.ops._outputs import Gradients


class NotBuiltError(RuntimeError):
    """A compiled module cannot be used; the message says why, and the remedy."""


@functools.cache
def _load(name: str) -> ModuleType | ImportError:
    try:
        return importlib.import_module(f"causalvae_fast.{name}")
    except ImportError as error:
        return error


def load(name: str) -> Any:
    """The compiled module `name` ("_cpu" or "_cuda").

    Raises:
        NotBuiltError: if it was not built or cannot be loaded, with the loader's reason.
    """
    module = _load(name)
    if isinstance(module, ImportError):
        raise NotBuiltError(
            f"the compiled module causalvae_fast.{name} cannot be loaded ({module}). "
            "Reinstall the package, or run `make build` in a checkout"
        ) from module
    return module


def cpu() -> Any:
    """The module of the CPU kernels."""
    return load("_cpu")


def signature(arguments: tuple[object, ...]) -> bytes | None:
    """Dtypes and shapes of tensors, strings, and which are None: equal bytes for arguments alike in these.

    None if the compiled module is not there, or if an argument is something else, or no ordinary tensor: of a
    subclass, not dense, or not on the CPU.
    """
    module = _load("_cpu")
    return None if isinstance(module, ImportError) else module.signature(*arguments)


def has_variable(name: str) -> bool:
    """Whether there may be an environment variable: os.environ takes ten times as long to say no."""
    module = _load("_cpu")
    return isinstance(module, ImportError) or module.has_variable(name)


def empty(like: Tensor, *sizes: int) -> Tensor:
    """An uninitialised tensor on the CPU with the dtype of another, by the compiled module: twice as fast as torch
    for small ones, and large ones need not fault in their pages again (csrc/common/buffer_pool.h).
    """
    return cpu().empty(like, *sizes)


def empty_like(tensors: Sequence[Tensor | None], wanted: Sequence[bool]) -> Gradients:
    """The same, shaped as tensors are, without gaps; None where not wanted."""
    return cpu().empty_like(tensors, wanted)
