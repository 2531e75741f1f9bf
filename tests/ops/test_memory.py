"""No op needs more memory than its inputs, its outputs, and O(d^2) for each thread."""

import gc
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from every_op import OPS, Case, cases
from pivot_inputs import call, first, pivot_inputs
from torch import Tensor

from causalvae_fast.ops import pivot_kl, use_backend

peak_memory = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "memory.py"))["peak_memory"]

FORBIDDEN = 16 << 20  # bytes, at least, of something of size (B, d, d) or (B, K) in float32
# Working memory of two threads, up to seven matrices of d = 72 for each of 16 samples, and up to 2 MB for a large
# output, since it is rounded up to whole pages.
ALLOWED = 12 << 20


@pytest.fixture(autouse=True)
def freeze_what_others_left() -> Iterator[None]:
    """Memory is measured after a garbage collection, which would look at what all other tests left each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def excess(compute: Callable[[], list[Tensor]]) -> int:
    """Bytes beyond the results at the peak of a call, as the operating system counts them: whoever allocates."""
    compute()  # so that what is made once is there
    results: list[Tensor] = []
    peak = peak_memory(lambda: results.extend(compute()))
    if peak is None:
        pytest.skip("this system does not tell the peak of the resident memory")
    return peak - sum(t.nbytes for t in results)


def large_batch(d: int, power: int) -> int:
    return FORBIDDEN // 4 // d**2 + 1


def outputs(case: Case) -> list[Tensor]:
    with torch.no_grad():
        found: Any = case.function(*case.tensors)
        return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("op", OPS)
def test_working_memory(op: str) -> None:
    torch.set_num_threads(2)
    ones = torch.ones(FORBIDDEN // 4 + 10_000)
    for case in cases(op, torch.float32, (16, 72), large_batch):
        forward, backward = excess(lambda case=case: outputs(case)), excess(lambda case=case: case.run(ones))  # type: ignore[misc]
        assert forward < ALLOWED, f"{case}: {forward / 2**20:.1f} MB in the forward pass"
        assert backward < ALLOWED, f"{case}: {backward / 2**20:.1f} MB with the gradients"


def test_working_memory_of_many_pivots() -> None:
    """B x K divergences exist only where they are asked for."""
    torch.set_num_threads(2)
    ones = torch.ones(FORBIDDEN // 2)
    for posterior in ("diagonal", "full"):
        inputs = pivot_inputs(2100, 2100, 2, posterior, torch.float32)
        assert len(inputs.loc) * len(inputs.jac) * 4 > FORBIDDEN
        for reduce in ("none", "min", "logsumexp"):

            def forward(inputs: Any = inputs, reduce: str = reduce) -> list[Tensor]:
                return [first(call(pivot_kl, inputs, reduce=reduce))]

            def backward(inputs: Any = inputs, reduce: str = reduce) -> list[Tensor]:
                leaves = inputs.leaves()
                value = first(call(pivot_kl, leaves, reduce=reduce))
                return [value, *torch.autograd.grad(value, leaves, ones[: value.numel()].view(value.shape))]

            assert excess(forward) < ALLOWED, f"{posterior} {reduce}"
            assert excess(backward) < ALLOWED, f"{posterior} {reduce}, with the gradients"


def test_that_this_would_be_noticed() -> None:
    """The reference, in PyTorch, has such temporaries."""
    with use_backend("reference"):
        for op in OPS:
            assert excess(next(cases(op, torch.float32, (40,), large_batch)).run) > ALLOWED
        inputs = pivot_inputs(2100, 2100, 2, "diagonal", torch.float32)
        assert excess(lambda: [first(call(pivot_kl, inputs, reduce="min"))]) > ALLOWED
