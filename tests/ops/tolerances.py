"""How far an op may be from its reference: one table for all ops, and what "relative" means in it.

The reference is evaluated in float64 on the same (rounded) inputs. An error is relative to the size of what is
summed up, not to a result that happens to cancel:

- of a value, to the sum of the absolute values of its terms, which each op states;
- of a gradient of one sample (a row of a gradient with a batch), to its largest element;
- of a gradient that the batch shares, to its largest element.

The table is not loosened to make a test pass: an error above it is a finding.
"""

import torch
from torch import Tensor

RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-12}

# For peers of a benchmark that compute the same in another, less accurate way: the gate is whether it is the same.
PEER = {torch.float32: 2e-2, torch.float64: 1e-6}


def exponential_tolerance(dtype: torch.dtype, terms: Tensor) -> float:
    """For gradients with weights exp(v - KL_k), as those of `pivot_kl` with "logsumexp": relative to their size.

    A divergence is off by some eps times the sum of its absolute terms, an absolute error, and the exponential
    makes a relative one of it: exp(x + e) = exp(x) (1 + e + ...). Both v and KL_k contribute, and those with a
    weight that counts are close to the smallest of the sample, whose terms these are. Each is rounded to the
    dtype, which alone is up to eps / 2 of it, after a sum of squares, whose roundings are taken to be less than
    3 eps / 2 of its terms: 4 eps in all. No order of the operations avoids it: the weight depends on a
    difference of rounded divergences.
    """
    largest = terms.max().item() if terms.numel() else 0.0
    return RELATIVE[dtype] + 4 * torch.finfo(dtype).eps * largest


def value_error(actual: Tensor, expected: Tensor, terms: Tensor) -> float:
    """The largest error of the values, each relative to the sum of its absolute terms; all of one shape."""
    return _largest((actual.double() - expected.double()).abs() / terms.double())


def gradient_error(actual: Tensor, expected: Tensor, *, batched: bool) -> float:
    """The largest error of a gradient relative to the largest element of the sample, or of the whole tensor."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    rows = max(len(expected), 1) if batched else 1
    error = (actual.double() - expected.double()).abs().reshape(rows, -1)
    size = expected.double().abs().reshape(rows, -1)
    if error.numel() == 0:
        return 0.0
    return _largest(error.amax(1) / size.amax(1).clamp_min(torch.finfo(torch.float64).tiny))


def _largest(errors: Tensor) -> float:
    """NaN counts as infinite, so that it fails every comparison."""
    return errors.nan_to_num(nan=torch.inf).max().item() if errors.numel() else 0.0
