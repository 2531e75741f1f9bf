"""The only place that chooses a backend."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from causalvae_fast.ops import _cuda, _native, _triton

VARIABLE = "CAUSALVAE_FAST_BACKEND"
_SOURCE = f"the variable {VARIABLE}"
_NOT_AVAILABLE = (_native.NotBuiltError, _cuda.NotUsableError, _triton.NotUsableError)
_OPS: dict[str, tuple[str, ...]] = {}  # the backends that serve each op


class _Scope(threading.local):
    """The backend that `use_backend` asked for in this thread."""

    name: str | None = None


_scope = _Scope()


class _Backend(NamedTuple):
    """A way to compute ops."""

    device: str  # of the tensors that it is the default for
    check: Callable[[str | None], None]  # (device of the tensors, or None): raises with the cause if it cannot
    detail: Callable[[], str]  # what is there, if it can


class BackendStatus(NamedTuple):
    """Whether a backend can serve an op here, and on which device, or why it cannot."""

    available: bool
    detail: str


class Backends(dict[str, dict[str, BackendStatus]]):
    """op -> backend -> status; printed, a line for each of them."""

    def __repr__(self) -> str:
        lines = []
        for op, statuses in self.items():
            lines.append(op)
            for name, status in statuses.items():
                available = "available" if status.available else "not available"
                lines.append(f"  {name:<10}{available}: {status.detail}")
        return "\n".join(lines)


def register(op: str, backends: Iterable[str]) -> None:
    """Makes the op known, with the backends that serve it beside the reference, the preferred ones first."""
    _OPS[op] = ("reference", *backends)


def backends() -> Backends:
    """Which backend can serve which op on this machine, and why another cannot: op -> backend -> status.

    A dictionary, which prints a line for each op and backend.

    Without a choice of the caller, tensors on the CPU are served by "cpu", those on a CUDA device by "triton" or
    "cuda", whichever an op has, all others by "reference".
    """
    return Backends({op: {name: _status(name) for name in names} for op, names in _OPS.items()})


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """A context manager: within it, and in this thread, ops use the backend `name`; `backend=` goes before it.

    >>> with use_backend("reference"):
    ...     pass  # calls of ops, of a prior, of a whole model

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
        NotUsableError: if it was asked for, and needs Triton, a driver or a GPU that is not there.
    """
    source, name = "backend", requested
    if name is None:
        source, name = "use_backend", _scope.name
    if name is None:
        source, name = _SOURCE, _from_environment()
    if name is None:
        return _default(op, device_type)
    _check_known(name, source)
    if name not in _OPS[op]:
        raise ValueError(f"{source}: {name!r} does not serve {op}, which has {', '.join(_OPS[op])}")
    try:
        _BACKENDS[name].check(device_type)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
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


def _default(op: str, device_type: str) -> str:
    for name in _OPS[op]:
        if _BACKENDS[name].device == device_type:
            try:
                _BACKENDS[name].check(device_type)
            except _NOT_AVAILABLE as error:
                _warn_once(str(error))
            else:
                return name
    return "reference"


@functools.cache
def _warn_once(detail: str) -> None:
    warnings.warn(f"causalvae_fast runs on its slow reference backend: {detail}", stacklevel=6)


def _status(name: str) -> BackendStatus:
    try:
        _BACKENDS[name].check(None)
    except _NOT_AVAILABLE as error:
        return BackendStatus(False, str(error))
    return BackendStatus(True, _BACKENDS[name].detail())


def _check_cpu(device_type: str | None) -> None:
    if device_type not in (None, "cpu"):
        raise ValueError(f"'cpu' takes tensors on the CPU, but they are on {device_type}")
    _native.cpu()


_BACKENDS = {
    "reference": _Backend("any", lambda device_type: None, lambda: "plain PyTorch, on any device"),
    "cpu": _Backend(
        "cpu", _check_cpu, lambda: f"compiled kernels for {_native.cpu().isas()[-1]}, for tensors on the CPU"
    ),
    "triton": _Backend("cuda", _triton.check, _triton.detail),
    "cuda": _Backend("cuda", _cuda.check, _cuda.detail),
}
