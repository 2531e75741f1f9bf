"""What Triton kernels load, store and multiply, counted while the interpreter runs them (gpu_model.py).

32-byte sectors of each load and store, and the multiply-adds of each product, for every launch of a call.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from h100 import FIRST_CACHE, SECTOR, Count
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class _Counter:
    def __init__(self, shared: Sequence[Tensor]) -> None:
        self.ranges = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in shared]
        self.seen: set[int] = set()  # sectors that the call has read or written
        self.written: set[int] = set()
        self.counts: list[Count] = []
        self.loaded: set[int] = set()  # by the program that runs
        self.clear()

    def clear(self) -> None:
        self.dram, self.shared, self.l2, self.flops, self.precision = 0, 0, 0, 0, "-"
        self.loaded, self.loads = set(), 0

    def begin_program(self) -> None:
        """Adds what the last program loaded."""
        self.l2 += len(self.loaded) if len(self.loaded) * SECTOR <= FIRST_CACHE else self.loads
        self.loaded, self.loads = set(), 0

    def load(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        sectors = np.unique(pointers[mask] // SECTOR).tolist()
        self.loads += len(sectors)
        self.loaded |= set(sectors)
        fresh = set(sectors) - self.seen
        self.dram += len(fresh)
        at = np.array(list(fresh), dtype=np.int64) * SECTOR
        self.shared += sum(int(((at >= begin) & (at < end)).sum()) for begin, end in self.ranges)
        self.seen |= fresh

    def store(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        sectors = np.unique(pointers[mask] // SECTOR).tolist()
        self.l2 += len(sectors)
        fresh = set(sectors) - self.written
        self.dram += len(fresh)
        self.written |= fresh
        self.seen |= fresh

    def end(self, kernel: str, grid: tuple[int, ...]) -> None:
        self.begin_program()
        programs = int(np.prod(grid))
        dram, shared, l2 = (SECTOR * sectors for sectors in (self.dram, self.shared, self.l2))
        count = Count(kernel, dram, shared, l2, self.flops, self.precision, programs)
        self.counts.append(count)
        self.clear()


@contextmanager
def counted(module: Any, shared: Sequence[Tensor] = ()) -> Iterator[list[Count]]:
    """What each launch of a launcher's module moves and computes, in the interpreter; `shared` tensors are the
    same for the whole batch, and start at a sector.
    """
    from triton import language
    from triton.runtime import interpreter

    counter = _Counter(shared)
    builder = interpreter.InterpreterBuilder
    load, store, dot = builder.create_masked_load, builder.create_masked_store, builder.create_dot
    start = builder.set_grid_idx

    def counting_start(self: Any, *index: int) -> None:
        counter.begin_program()
        start(self, *index)

    def counting_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        counter.load(pointers.data, mask.data)
        return load(self, pointers, mask, *rest)

    def counting_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        counter.store(pointers.data, mask.data)
        return store(self, pointers, value, mask, *rest)

    def counting_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: int) -> Any:
        counter.flops += 2 * a.data.size * b.data.shape[-1]
        counter.precision = precision.name.lower()
        return dot(self, a, b, d, precision, imprecise)

    class Counted:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*args: Any, **kwargs: Any) -> None:
                self.kernel[grid](*args, **kwargs)
                counter.end(self.name, grid)

            return launch

    patch = interpreter._patch_lang

    def patch_once(function: Any) -> Any:
        """Triton patches its language again for each function that a kernel calls, which takes a lot of time."""
        used = [x for x in function.__globals__.values() if x is language or x is language.core]
        if any(language.core.is_builtin(x.load) for x in used):
            return patch(function)
        return interpreter._LangPatchScope()

    kernels = {name: kernel for name, kernel in vars(module).items() if name.endswith("_kernel")}
    try:
        builder.create_masked_load, builder.create_masked_store = counting_load, counting_store
        builder.create_dot, builder.set_grid_idx = counting_dot, counting_start
        interpreter._patch_lang = patch_once
        for name, kernel in kernels.items():
            setattr(module, name, Counted(name, kernel))
        yield counter.counts
    finally:
        builder.create_masked_load, builder.create_masked_store, builder.create_dot = load, store, dot
        builder.set_grid_idx, interpreter._patch_lang = start, patch
        for name, kernel in kernels.items():
            setattr(module, name, kernel)


def sem_kl(full: bool, gradients: bool, packed: bool, batch: int, d: int, samples: int = 1) -> list[Count]:
    """The launches of some samples of `sem_kl`, configured as for the whole batch."""
    module = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")
    size = d * (d + 1) // 2
    matrix = (samples, size) if packed else (samples, d, d)
    row = torch.ones(samples, d)
    panels = module.panels_config(batch, d, torch.float32)
    with mock.patch.object(module, "panels_config", return_value=panels), counted(module) as counts:
        module.sem_kl_triton(
            torch.zeros(matrix), row, torch.zeros(d), row.clone(), torch.ones(matrix) if full else row.clone(),
            packed_jac=packed, packed_scale_tril=packed and full,
            upstream=torch.ones(samples), wanted=(gradients,) * 5,
        )  # fmt: skip
    return counts


def mlp_sem_kl(full: bool, gradients: bool, batch: int, d: int, hidden: int) -> list[Count]:
    """The launches of a few samples of `mlp_sem_kl`, those of `sem_kl` among them."""
    module = importlib.import_module("causalvae_fast.ops.mlp_sem_kl.triton_kernel")
    linear = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")
    shapes = [(batch, d), (d, hidden, d), (d, hidden), (d, hidden), (d,), (d, d), (d,), (batch, d)]
    factor = torch.eye(d).repeat(batch, 1, 1) if full else torch.ones(batch, d)
    with counted(module) as counts, counted(linear) as others:
        module.mlp_sem_kl_triton(
            "tanh", *(torch.full(shape, 0.01) for shape in shapes), factor,
            upstream=torch.ones(batch) if gradients else "none", wanted=(gradients,) * 9,
        )  # fmt: skip
    return [*counts, *others]


def pivot_kl(full: bool, gradients: bool, batch: int, pivots: int, d: int, reduce: str) -> tuple[list[Count], int]:
    """The launches of a few samples of a batch of `pivot_kl`, or of its backward pass without what torch does; and
    how many samples. Pivots are divided as for the whole batch.
    """
    module = importlib.import_module("causalvae_fast.ops.pivot_kl.triton_kernel")
    few = 1 if full else 32
    factor = torch.eye(d).repeat(few, 1, 1) if full else torch.ones(few, d)
    shared = torch.zeros(pivots, d, d), torch.zeros(pivots, d), torch.zeros(d)
    parts = module._parts(batch, pivots, factor)
    inputs = (*shared, torch.zeros(few, d), factor)
    upstream = torch.ones(few, pivots) if reduce == "none" else torch.ones(few)
    kept = {"value": torch.zeros(few), "index": torch.zeros(few, dtype=torch.int64)}
    with mock.patch.object(module, "_parts", return_value=parts), counted(module, shared) as counts:
        if gradients:
            module.pivot_kl_triton_backward(*inputs, reduce=reduce, upstream=upstream, **kept)
        else:
            module.pivot_kl_triton(*inputs, reduce=reduce)
    return counts, few


class Operations(TorchDispatchMode):
    """What operations of torch read and write, each its operands and its result: bytes, and how many of them there
    are. A dimension that is expanded is read once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        moves = not func.is_view and "empty" not in str(func)
        if moves:
            operands = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(_held(t) for t in operands)
            self.number += 1
        return result


def _held(tensor: Tensor) -> int:
    """Bytes of the elements that differ in memory."""
    lengths = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0]
    return int(np.prod(lengths)) * tensor.element_size()


def pivot_kl_products(full: bool, batch: int, pivots: int, d: int) -> tuple[int, int, int]:
    """Bytes, flops and number of torch's operations in a backward pass, which are all but its kernel."""
    module = importlib.import_module("causalvae_fast.ops.pivot_kl.triton_kernel")

    def tensor(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    factor = tensor(batch, d, d) if full else tensor(batch, d)
    inputs = tensor(pivots, d, d), tensor(pivots, d), tensor(d), tensor(batch, d), factor
    chunk = max(1, module.CHUNK // (d * max(pivots, d if full else 1)))
    found = [0, 0, 0]
    for first in range(0, batch, chunk):
        samples = min(chunk, batch - first)
        part = (*inputs[:3], inputs[3][:samples], inputs[4][:samples])
        with FlopCounterMode(display=False) as flops, Operations() as operations:
            module._products(part, tensor(samples, pivots), tensor(pivots, samples, d), (True,) * 5)
        for k, more in enumerate((operations.bytes, flops.get_total_flops(), operations.number)):
            found[k] += more
    return found[0], found[1], found[2]
