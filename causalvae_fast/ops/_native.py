"""The compiled modules, loaded when they are first needed, and how tensors are handed to them."""

from __future__ import annotations

import functools
import importlib
import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


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


def without_gaps(tensor: Tensor, event_dims: int) -> Tensor:
    """The tensor as it can be handed to a kernel: with memory that holds its values, and without gaps between the
    elements of a sample's last `event_dims` dimensions. Copied only if it is not so already.

    The stride of the batch may be anything, so an expanded batch is never copied.
    """
    if tensor.is_neg() or tensor._is_zerotensor():  # views whose memory holds something else, or nothing
        return tensor.clone(memory_format=torch.contiguous_format).resolve_neg()
    if tensor.is_contiguous():
        return tensor
    if event_dims == 0:
        return tensor
    strides = tensor.stride()[tensor.dim() - event_dims :]
    expected = (tensor.shape[-1], 1)[2 - event_dims :]
    return tensor if strides == expected else tensor.contiguous()


_POOLED_BYTES = 1 << 18


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the CPU, float32 or float64.

    The memory of a large one comes from a pool of the compiled module and goes back there when the tensor is
    freed, so that the next call does not fault in its pages again (csrc/common/buffer_pool.h).
    """
    if math.prod(shape) * dtype.itemsize < _POOLED_BYTES:
        return torch.empty(shape, dtype=dtype, device="cpu")
    module = cpu()
    return torch.from_numpy((module.empty_float32 if dtype == torch.float32 else module.empty_float64)(shape))


def empty_like(tensor: Tensor) -> Tensor:
    """The same, without gaps, of the shape and dtype of a tensor: three times quicker than to pass a shape."""
    if tensor.nbytes >= _POOLED_BYTES:
        return empty(tensor.shape, tensor.dtype)
    if tensor.is_contiguous():
        return torch.empty_like(tensor)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def address(tensor: Tensor | None) -> int:
    """Address of the first element; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def batched_address(tensor: Tensor | None, event_dims: int) -> tuple[int, int]:
    """Address and stride of the batch, 0 where the batch shares one row: Batched<T> in csrc/common/batched.h."""
    if tensor is None:
        return 0, 0
    return tensor.data_ptr(), tensor.stride(0) if tensor.dim() > event_dims else 0
