"""What ops, and the prior, do under torch.autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import chain
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: under autocast, float16 and bfloat16 arguments are converted to float32, and autocast is off
    inside. Elsewhere the arguments are passed on as they are.

    The device is that of the first argument that is a tensor, or a module with one.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling() and not torch._C._is_any_autocast_enabled():
            return function(*args, **kwargs)
        device = _device((*args, *kwargs.values()))
        if device is None or not (_has_autocast(device) and torch.is_autocast_enabled(device)):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            converted = [_float32(a) for a in args]
            return function(*converted, **{name: _float32(a) for name, a in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def _has_autocast(device: str) -> bool:
    # Not asked where it is known: torch.compile of torch 2.11 cannot trace the question.
    return device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)


def _device(arguments: Iterable[object]) -> str | None:
    for argument in arguments:
        if isinstance(argument, Tensor):
            return argument.device.type
        if isinstance(argument, nn.Module):
            for tensor in chain(argument.parameters(), argument.buffers()):
                return tensor.device.type
    return None


def _float32(argument: object) -> object:
    if isinstance(argument, Tensor) and argument.dtype in _LOW_PRECISION:
        return argument.float()
    return argument
