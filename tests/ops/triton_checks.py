"""What the tests of Triton kernels share: whether they run here, and products as tensor cores compute them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from causalvae_fast.ops import _triton

INSTALLED = importlib.util.find_spec("triton") is not None

needs_triton = pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")
needs_interpreter = pytest.mark.skipif(
    not _triton.interpreted(),
    reason="Triton is not installed, or compiles kernels in this process: there is a GPU",
)


def skip_without_gpu() -> None:
    """Skips the module that calls it, without collecting its cases, where they could not run."""
    if not INSTALLED or not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and Triton", allow_module_level=True)


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """To 10 bits of mantissa, ties away from zero, as cvt.rna.tf32.f32 does; float32 in, float32 out."""
    bits = (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), bits.view(np.float32), x)


def truncated_to_tf32(x: np.ndarray) -> np.ndarray:
    """The 10 bits that a tensor core reads of a float32."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


@contextmanager
def tensor_core_products(used: set[str] | None = None) -> Iterator[None]:
    """The interpreter multiplies float32 matrices as tensor cores do: for "tf32" with 10 bits, for "tf32x3" as the
    sum of three such products. Adds to `used` the precisions that were asked for.
    """
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    exact = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: int) -> Any:
        def dot(left: np.ndarray, right: np.ndarray, total: Any) -> Any:
            operands = TensorHandle(left, a.dtype), TensorHandle(right, b.dtype)
            return exact(self, *operands, total, input_precision, max_num_imprecise_acc)

        if used is not None:
            used.add(input_precision.name)
        if a.data.dtype != np.float32 or input_precision == ir.INPUT_PRECISION.IEEE:
            return dot(a.data, b.data, d)
        if input_precision == ir.INPUT_PRECISION.TF32:
            return dot(truncated_to_tf32(a.data), truncated_to_tf32(b.data), d)
        large_a, large_b = rounded_to_tf32(a.data), rounded_to_tf32(b.data)
        small_a, small_b = truncated_to_tf32(a.data - large_a), truncated_to_tf32(b.data - large_b)
        return dot(large_a, large_b, dot(small_a, large_b, dot(large_a, small_b, d)))

    InterpreterBuilder.create_dot = create_dot
    try:
        yield
    finally:
        InterpreterBuilder.create_dot = exact
