"""Peak memory of a call, from the kernel's account of the process: it sees every allocator."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from causalvae_fast.ops import _native

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5), clear_refs


_ARENA_MAX = -8  # mallopt(3)


def use_one_heap() -> None:
    """To be called before there are threads. glibc gives each a heap of its own, and keeps what was freed there
    even when it is told to return it: buffers that JAX's threads had allocated before would not be seen again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_ARENA_MAX, 1)


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Bytes that a call adds to the resident memory at its peak; None where the system does not tell."""
    try:
        _release_cached_memory()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        call()
        return max(0, _resident("VmHWM") - before)
    except OSError:
        return None


def _release_cached_memory() -> None:
    """Freed memory that is kept would not be seen when it is used again."""
    gc.collect()
    _native.cpu().release_cached_buffers()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim:
        trim(0)


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
