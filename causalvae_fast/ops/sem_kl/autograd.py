"""`sem_kl` as PyTorch sees it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp, Gradients, Kernels, Tensors
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _forward(*inputs: Tensor) -> tuple[Tensor]:
    return (sem_kl_cpu(*inputs)[0],)


def _backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    return sem_kl_cpu(*inputs, upstream=upstreams[0], wanted=wanted)[1]


def _both(inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
    loc = inputs[3]
    upstream = loc.new_full((), 1 / max(loc.shape[0], 1) if reduction == "mean" else 1.0)
    return sem_kl_cpu(*inputs, upstream=upstream, wanted=wanted)


# Without a reduction, the gradients come from the backward pass, where the upstream gradients are known. Storing
# them unscaled would cost another pass over the (B, d, d) gradients, to scale them, and is impossible where they
# are summed over the batch.
sem_kl_op = FusedOp("sem_kl", reference=sem_kl_reference, fake=_fake, kernels=Kernels(_forward, _backward, _both))
