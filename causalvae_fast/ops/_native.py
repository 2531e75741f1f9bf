"""The compiled modules, loaded when they are first needed, and what they do beside kernels."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch


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
    """The module of the CPU kernels. What it has beside them is described in csrc/bindings/tensor.h."""
    return _found or _find()


_found: ModuleType | None = None  # that of the CPU kernels, which each call asks for several times


def _find() -> ModuleType:
    global _found
    _found = load("_cpu")
    return _found


def cuda_decision() -> str:
    """What the build decided about CUDA."""
    try:
        return str(cpu().build_info()["cuda"])
    except NotBuiltError:
        return "not built"


def signature(arguments: tuple[object, ...]) -> bytes | None:
    """Dtypes and shapes of tensors, strings, and which are None: equal bytes for calls alike in these.

    None if the compiled module is not there, or the call is not ordinary: an argument is something else, a tensor
    is of a subclass, not dense or not on the CPU, or PyTorch watches or transforms what is called (compiling,
    autocast, tracing, modes, torch.func, forward mode).
    """
    if torch.compiler.is_compiling():
        return None
    try:
        return (_found or _find()).signature(*arguments)
    except NotBuiltError:
        return None


def first_element(tensor: object) -> float | None:
    """The first element of a tensor; None without the compiled module, or if the tensor is not ordinary, in the
    sense of `signature`.
    """
    try:
        return (_found or _find()).first_element(tensor)
    except NotBuiltError:
        return None
