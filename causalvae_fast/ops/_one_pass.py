"""Kernels of a divergence, one number for each sample, that find value and gradients in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from causalvae_fast.ops._fused import Kernels, reduce
from causalvae_fast.ops._outputs import Gradients, Tensors

Kernel = Callable[..., tuple[Tensor, Gradients]]  # the value and the gradients


def of_samples(kernel: Kernel) -> Kernels:
    """The kernels of an op without its reductions, from a function of its inputs and of

    - upstream, (B,): the gradient of the loss with respect to each divergence;
    - wanted: for each input, whether its gradient is computed.
    """

    def forward(*inputs: Tensor) -> tuple[Tensor]:
        return (kernel(*inputs)[0],)

    # Without a reduction, the gradients come from the backward pass, where the upstream gradients are known.
    # Storing them unscaled would cost another pass over them, to scale them, and is impossible where they are
    # summed over the batch.
    def backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
        return kernel(*inputs, upstream=upstreams[0], wanted=wanted)[1]

    return Kernels(forward, backward)


def one_pass(kernel: Kernel) -> Kernels:
    """Those of `of_samples`, and the reductions, where the function, the last of whose inputs has a row for each
    sample, also takes

    - weight: the same upstream gradient for all divergences;
    - wants_total: return the weighted sum of the divergences instead of them, (B,).
    """

    def reduced(inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        batch = inputs[-1].shape[0]
        weight = 1.0 if reduction == "sum" else 1 / max(batch, 1)
        total, gradients = kernel(*inputs, weight=weight, wanted=wanted, wants_total=True)
        if batch == 0 and reduction == "mean":
            total.fill_(math.nan)  # like Tensor.mean
        return total, gradients

    return of_samples(kernel)._replace(reduced=reduced)


def one_launch(kernel: Kernel) -> Kernels:
    """Those of `of_samples`, and the reductions, where the function takes their names, "sum" or "mean", for
    `upstream`.
    """

    def reduced(inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        value, gradients = kernel(*inputs, upstream=reduction, wanted=wanted)
        return reduce(value, reduction), gradients

    return of_samples(kernel)._replace(reduced=reduced)
