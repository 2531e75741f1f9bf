"""The only place that chooses a backend."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from causalvae_fast.ops import _native

VARIABLE = "CAUSALVAE_FAST_BACKEND"
_SOURCE = f"the variable {VARIABLE}"
_BACKENDS = ("reference", "cpu")
_OPS: dict[str, tuple[str, ...]] = {}  # the backends that serve each op


class _Scope(threading.local):
    """The backend that `use_backend` asked for in this thread."""

    name: str | None = None


_scope = _Scope()


class BackendStatus(NamedTuple):
    """Whether a backend can serve an op here, and on which device, or why it cannot."""

    available: bool
    detail: str


def register(op: str) -> None:
    """Makes the op known, with the backends that every op has."""
    _OPS[op] = ("reference", "cpu")


def backends() -> dict[str, dict[str, BackendStatus]]:
    """Which backend can serve which op on this machine, and why another cannot: op -> backend -> status.

    Without a choice of the caller, tensors on the CPU are served by "cpu", all others by "reference".
    """
    return {op: {name: _status(name) for name in names} for op, names in _OPS.items()}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the context, and in this thread, ops use the backend `name`; `backend=` of a call goes before it.

    A function that torch.compile has compiled keeps the backend that was chosen when it was traced.

    Raises:
        ValueError: if there is no such backend.
    """
    _check_known(name, "use_backend")
    previous = _scope.name
    _scope.name = name
    try:
        yield
    finally:
        _scope.name = previous


@torch.compiler.assume_constant_result
def choose_backend(op: str, requested: str | None, device_type: str) -> str:
    """The backend for tensors on a device: what the call asks for, else `use_backend`, else the environment
    variable CAUSALVAE_FAST_BACKEND, else the fastest there is. One that was asked for never falls back.

    Raises:
        ValueError: if the backend is unknown, does not serve the op, or does not take tensors of the device.
        NotBuiltError: if it was asked for and was not built.
    """
    source, name = "backend", requested
    if name is None:
        source, name = "use_backend", _scope.name
    if name is None:
        source, name = _SOURCE, _from_environment()
    if name is None:
        return _default(device_type)
    _check_known(name, source)
    if name not in _OPS[op]:
        raise ValueError(f"{source}: {name!r} does not serve {op}, which has {', '.join(_OPS[op])}")
    if name == "cpu":
        if device_type != "cpu":
            raise ValueError(f"{source}: 'cpu' takes tensors on the CPU, but they are on {device_type}")
        _native.cpu()
    return name


# os.environ takes a microsecond to say that there is no such variable, the dictionary in it a tenth of that.
_environment: dict[object, object] | None = getattr(os.environ, "_data", None)
_KEY: object = os.environ.encodekey(VARIABLE)


def _from_environment() -> str | None:
    if _environment is not None and _KEY not in _environment:
        return None
    return os.environ.get(VARIABLE) or None


def _check_known(name: str, source: str) -> None:
    if name not in _BACKENDS:
        raise ValueError(f"{source}: there is no backend {name!r}; choose one of {', '.join(_BACKENDS)}")


def _default(device_type: str) -> str:
    if device_type != "cpu":
        return "reference"
    try:
        _native.cpu()
    except _native.NotBuiltError as error:
        _warn_once(str(error))
        return "reference"
    return "cpu"


@functools.cache
def _warn_once(detail: str) -> None:
    warnings.warn(f"causalvae_fast runs on its slow reference backend: {detail}", stacklevel=6)


def _status(name: str) -> BackendStatus:
    if name == "reference":
        return BackendStatus(True, "plain PyTorch, on any device")
    try:
        isas = _native.cpu().isas()
    except _native.NotBuiltError as error:
        return BackendStatus(False, str(error))
    return BackendStatus(True, f"compiled kernels for {isas[-1]}, for tensors on the CPU")
