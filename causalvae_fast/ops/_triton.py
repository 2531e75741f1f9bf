"""Triton, imported when it is first needed, and whether its kernels can run here."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

INTERPRETER = "TRITON_INTERPRET"
MOST_LATENTS = 32768  # offsets within a sample are 32-bit


class Config(NamedTuple):
    """How a kernel is compiled: its tiles, and the options of the compiler."""

    tiles: dict[str, int]
    num_warps: int
    num_stages: int = 1

    @property
    def options(self) -> dict[str, int]:
        return {**self.tiles, "num_warps": self.num_warps, "num_stages": self.num_stages}


class NotUsableError(RuntimeError):
    """Kernels in Triton cannot be used; the message says why, and the remedy."""


@functools.cache
def _load() -> ModuleType | ImportError:
    try:
        return importlib.import_module("triton")
    except ImportError as error:
        return error


@functools.cache
def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on tensors in the memory of the CPU. What the environment
    says when Triton is first imported holds for the process.
    """
    if isinstance(_load(), ImportError):
        return False
    standard = importlib.import_module("triton.language.standard")
    jit = importlib.import_module("triton.runtime.jit")
    return not isinstance(standard.cdiv, jit.JITFunction)


def check(device_type: str | None) -> None:
    """Kernels in Triton can run on tensors of a device, or, for None, at all.

    Raises:
        NotUsableError: if Triton is not installed, or there is no GPU.
        ValueError: if the tensors are elsewhere.
    """
    module = _load()
    if isinstance(module, ImportError):
        raise NotUsableError(
            f"Triton is not installed ({module}): pip install 'causalvae_fast[triton]'"
        ) from module
    if interpreted():
        return
    if device_type not in (None, "cuda"):
        raise ValueError(
            f"'triton' takes tensors on a CUDA device, but they are on {device_type}; "
            f"its interpreter, {INTERPRETER}=1 before Triton is imported, takes those on the CPU"
        )
    if not torch.cuda.is_available():
        raise NotUsableError(f"Triton {module.__version__} is installed, but PyTorch sees no CUDA device")


def detail() -> str:
    """The version, and where it runs; after `check`."""
    module = _load()
    assert isinstance(module, ModuleType)
    where = "interpreted, on the CPU" if interpreted() else f"for {torch.cuda.get_device_name()}"
    return f"Triton {module.__version__}, {where}"


def without_gaps(tensor: Tensor, event_dims: int) -> Tensor:
    """The tensor as it can be handed to a kernel: with memory that holds its values, and without gaps between the
    elements of a sample's last `event_dims` dimensions. Copied only if it is not so already.

    The stride of the batch may be anything, so an expanded batch is never copied.
    """
    if tensor.is_neg() or tensor._is_zerotensor():  # views whose memory holds something else, or nothing
        return tensor.clone(memory_format=torch.contiguous_format).resolve_neg()
    if tensor.is_contiguous() or event_dims == 0:
        return tensor
    strides = tensor.stride()[tensor.dim() - event_dims :]
    expected = (tensor.shape[-1], 1)[2 - event_dims :]
    return tensor if strides == expected else tensor.contiguous()


def dot_precision(dtype: torch.dtype) -> str:
    """How products of float32 matrices are computed by tensor cores: to float32 accuracy in three passes, or in
    TF32 where the user has allowed it for matrix products, with `torch.set_float32_matmul_precision`.
    """
    if dtype == torch.float64:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def check_latents(d: int) -> None:
    """There are not more latents than kernels in Triton take.

    Raises:
        ValueError: otherwise.
    """
    if d > MOST_LATENTS:
        raise ValueError(f"loc must have at most {MOST_LATENTS} latents for the backend 'triton', got {d}")
