"""What holds for every test: seeds, one thread, and uninitialised memory that shows when it is read."""

import functools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

# For the few graphs that tests compile, Inductor's headers and processes take longer to prepare than they save.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")
# Without a GPU, Triton's interpreter runs its kernels. It is asked when torch, for the package, imports Triton.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from causalvae_fast.ops import _native


def poisoned(allocate: Callable[..., Any]) -> Callable[..., Any]:
    """The allocation, its memory filled with NaN if it holds floating-point numbers."""

    @functools.wraps(allocate)
    def filled(*args: Any, **kwargs: Any) -> Any:
        result = allocate(*args, **kwargs)
        for tensor in result if isinstance(result, list) else [result]:
            if tensor is not None and (tensor.is_floating_point() or tensor.is_complex()):
                fill_with_nan(tensor)
        return result

    return filled


def fill_with_nan(tensor: Tensor) -> None:
    with torch.no_grad():
        try:
            tensor.numpy().fill(np.nan)  # one thread: torch would use several, and hang in a forked child
        except (RuntimeError, TypeError):  # a fake tensor, one that is transformed, or bfloat16
            tensor.fill_(float("nan"))


@pytest.fixture(autouse=True, scope="session")
def _poison() -> Iterator[None]:
    """An element that a kernel forgets to write is NaN, not what happened to stand in the memory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like", "empty_strided"):
            patch.setattr(torch, name, poisoned(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            patch.setattr(Tensor, name, poisoned(getattr(Tensor, name)))
        module = _native._load("_cpu")
        for name in list(vars(module)):
            if name.startswith("empty"):
                patch.setattr(module, name, poisoned(getattr(module, name)))
        yield


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """Each test starts from the same seeds, on one thread, and leaves the number of threads as it was."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, for libraries that draw from the global generator
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
