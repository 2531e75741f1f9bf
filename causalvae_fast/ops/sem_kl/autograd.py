"""`sem_kl` as PyTorch sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops._outputs import Gradients, Tensors
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _forward(*inputs: Tensor) -> tuple[Tensor]:
    return (sem_kl_cpu(*inputs).value,)


def _backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    return sem_kl_cpu(*inputs, upstream=upstreams[0], wanted=wanted).gradients


def _reduced(inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
    batch = inputs[3].shape[0]
    weight = 1.0 if reduction == "sum" else 1 / max(batch, 1)
    _, gradients, total = sem_kl_cpu(*inputs, upstream=weight, wanted=wanted, wants_total=True)
    assert total is not None
    if batch == 0 and reduction == "mean":
        total.fill_(math.nan)  # like Tensor.mean
    return total, gradients


# Without a reduction, the gradients come from the backward pass, where the upstream gradients are known. Storing
# them unscaled would cost another pass over the (B, d, d) gradients, to scale them, and is impossible where they
# are summed over the batch.
sem_kl_op = FusedOp(
    "sem_kl", reference=sem_kl_reference, fake=_fake, kernels=Kernels(_forward, _backward, _reduced)
)
