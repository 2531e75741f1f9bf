"""What ops do under torch.autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def in_float32(op: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator: under autocast, float16 and bfloat16 arguments are converted to float32, and autocast is off
    inside. Elsewhere the arguments are passed on as they are.
    """

    @functools.wraps(op)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next((a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        if device is None or not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return op(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            converted = [_float32(a) for a in args]
            return op(*converted, **{name: _float32(a) for name, a in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def _float32(argument: object) -> object:
    if isinstance(argument, Tensor) and argument.dtype in _LOW_PRECISION:
        return argument.float()
    return argument
