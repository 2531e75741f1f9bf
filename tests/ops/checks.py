"""What the tests of an op share: parameters, and checks of values and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_kl_terms
from tolerances import RELATIVE, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops import _native, sem_kl

ALL = (True,) * 5
ISAS = _native.cpu().isas()
BATCHES = (0, 1, 17)
SIZES = (1, 2, 3, 5, 16, 17, 33, 64, 100, 257)
ONE_PER_KERNEL = (5, 40)  # d for samples across lanes, and for one sample at a time

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
each_jac = pytest.mark.parametrize("jac", SHARING, ids=lambda sharing: f"jac_{sharing}")
each_offset = pytest.mark.parametrize("offset", SHARING, ids=lambda sharing: f"offset_{sharing}")
each_kernel = pytest.mark.parametrize("d", ONE_PER_KERNEL, ids=lambda d: f"d{d}")


def check_value(value: Tensor, expected: Tensor, inputs: SEMInputs, case: str = "") -> None:
    assert value.dtype == inputs.loc.dtype
    error = value_error(value, expected, sem_kl_terms(inputs))
    assert error <= RELATIVE[value.dtype], f"value {case}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor], inputs: SEMInputs, case: str = ""
) -> None:
    for name, gradient, truth, batched in zip(inputs._fields, gradients, expected, inputs.batched, strict=True):
        if gradient is None:
            continue
        assert gradient.dtype == inputs.loc.dtype
        error = gradient_error(gradient, truth, batched=batched)
        assert error <= RELATIVE[gradient.dtype], f"gradient of {name} {case}: {error:.1e}"


def value_and_gradients(inputs: SEMInputs, upstream: Tensor) -> list[Tensor]:
    """The public function and autograd, as a user calls them: the value, then the five gradients."""
    leaves = SEMInputs(*(t.detach().requires_grad_() for t in inputs))  # of the same layout
    value = leaves.call(sem_kl)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def same_bits(actual: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
    """Equal, NaN where the other is NaN."""
    return all(
        a is b or (a is not None and b is not None and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(actual, expected, strict=True)
    )
