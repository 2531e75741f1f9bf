"""The compiled CUDA module, and whether its kernels can run here."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from causalvae_fast.ops import _native

LEAST_CAPABILITY = (8, 0)  # CMAKE_CUDA_ARCHITECTURES in CMakeLists.txt


class NotUsableError(RuntimeError):
    """The CUDA kernels were built, but cannot run here; the message says why."""


def check(device_type: str | None) -> None:
    """The kernels can run on tensors of a device, or, for None, at all.

    Raises:
        NotBuiltError: if the module was not built, with what the build decided, or cannot be loaded.
        NotUsableError: if there is no driver, it is too old, or there is no device.
        ValueError: if the tensors are elsewhere.
    """
    cause = _cause()
    if cause is not None:
        error, message = cause
        raise error(message)  # a new one each time: it keeps the frames, and so the tensors, of its callers
    if device_type not in (None, "cuda"):
        raise ValueError(f"'cuda' takes tensors on a CUDA device, but they are on {device_type}")


@functools.cache
def _cause() -> tuple[type[Exception], str] | None:
    """Why the kernels cannot run, if they cannot: the error and its message."""
    try:
        module = _native.load("_cuda")
    except _native.NotBuiltError as error:
        return _native.NotBuiltError, f"the CUDA module was {_native.cuda_decision()}; {error}"
    runtime, driver = (_version(v) for v in (module.runtime_version(), module.driver_version()))
    if module.driver_version() == 0:
        return NotUsableError, "the CUDA module was built, but there is no NVIDIA driver"
    try:
        devices = module.devices()
    except RuntimeError as error:
        return NotUsableError, f"no device can be used: {error} (runtime {runtime}, driver for CUDA {driver})"
    if not devices:
        return NotUsableError, f"the driver, for CUDA {driver}, knows no device"
    if not torch.cuda.is_available():
        return NotUsableError, f"there is {devices[0]}, but PyTorch {torch.__version__} sees no CUDA device"
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if capability < LEAST_CAPABILITY:
            return NotUsableError, (
                f"{torch.cuda.get_device_name(index)} has compute capability {capability[0]}.{capability[1]}, and "
                "the kernels are compiled for 8.0 and later; CUDA_VISIBLE_DEVICES can hide it"
            )
    return None


def detail() -> str:
    """Devices and versions; after `check`."""
    module = _native.load("_cuda")
    runtime, driver = (_version(v) for v in (module.runtime_version(), module.driver_version()))
    return f"compiled kernels for {', '.join(module.devices())}: runtime {runtime}, driver for CUDA {driver}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def module() -> Any:
    return _native.load("_cuda")


def place(tensor: Tensor) -> tuple[int, int]:
    """Where a kernel for a tensor runs: the index of its device, and the handle of the current stream there."""
    index = tensor.get_device()
    return index, torch.cuda.current_stream(index).cuda_stream


def outputs_like(inputs: tuple[Tensor | None, ...], wanted: Any) -> list[Tensor | None]:
    """Uninitialised tensors, without gaps, shaped as those given, and None where not wanted."""
    return [
        torch.empty(t.shape, dtype=t.dtype, device=t.device) if want and t is not None else None
        for t, want in zip(inputs, wanted, strict=True)
    ]
