"""`pivot_kl` as PyTorch sees it: an op for each reduction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops._outputs import Gradients, Tensors
from causalvae_fast.ops.pivot_kl.cpu import pivot_kl_cpu
from causalvae_fast.ops.pivot_kl.reference import (
    pivot_kl_logsumexp_reference,
    pivot_kl_min_reference,
    pivot_kl_reference,
)


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0], jac.shape[0]),)


def _forward(*inputs: Tensor) -> tuple[Tensor]:
    return (pivot_kl_cpu(*inputs, reduce="none").value,)


def _backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    return pivot_kl_cpu(*inputs, reduce="none", upstream=upstreams[0], wanted=wanted).gradients


def _fake_min(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor]:
    return loc.new_empty(loc.shape[0]), loc.new_empty(loc.shape[0], dtype=torch.int64)


def _forward_min(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    value, index, _ = pivot_kl_cpu(*inputs, reduce="min")
    assert index is not None
    return value, index


def _backward_min(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
    value, index = outputs
    return pivot_kl_cpu(
        *inputs, reduce="min", upstream=upstreams[0], value=value, index=index, wanted=wanted
    ).gradients


def _fake_logsumexp(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _forward_logsumexp(*inputs: Tensor) -> tuple[Tensor]:
    return (pivot_kl_cpu(*inputs, reduce="logsumexp").value,)


def _backward_logsumexp(
    upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]
) -> Gradients:
    return pivot_kl_cpu(
        *inputs, reduce="logsumexp", upstream=upstreams[0], value=outputs[0], wanted=wanted
    ).gradients


# The backward kernels compute the divergences again rather than store (B, K) of them; from the reduced ones they
# know the weight of each as soon as they have it.
pivot_kl_ops = {
    "none": FusedOp(
        "pivot_kl", reference=pivot_kl_reference, fake=_fake, kernels={"cpu": Kernels(_forward, _backward)}
    ),
    "min": FusedOp(
        "pivot_kl_min",
        reference=pivot_kl_min_reference,
        fake=_fake_min,
        kernels={"cpu": Kernels(_forward_min, _backward_min)},
        outputs=2,
        keeps_outputs=True,
        public="pivot_kl",
    ),
    "logsumexp": FusedOp(
        "pivot_kl_logsumexp",
        reference=pivot_kl_logsumexp_reference,
        fake=_fake_logsumexp,
        kernels={"cpu": Kernels(_forward_logsumexp, _backward_logsumexp)},
        keeps_outputs=True,
        public="pivot_kl",
    ),
}
