"""`pivot_kl` as PyTorch sees it: an op for each reduction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops._outputs import Gradients, Tensors
from causalvae_fast.ops.pivot_kl.cpu import PivotKL, pivot_kl_cpu
from causalvae_fast.ops.pivot_kl.reference import (
    pivot_kl_logsumexp_reference,
    pivot_kl_min_reference,
    pivot_kl_reference,
)


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0], jac.shape[0]),)


def _fake_min(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor]:
    return loc.new_empty(loc.shape[0]), loc.new_empty(loc.shape[0], dtype=torch.int64)


def _fake_logsumexp(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _cpu(*inputs: Tensor, **options: Any) -> PivotKL:
    return pivot_kl_cpu(*inputs, **options)


def _cpu_backward(*inputs: Tensor, **options: Any) -> Gradients:
    return pivot_kl_cpu(*inputs, **options).gradients


# Importing these imports Triton, which may not be there.
def _triton(*inputs: Tensor, **options: Any) -> PivotKL:
    from causalvae_fast.ops.pivot_kl.triton_kernel import pivot_kl_triton

    return pivot_kl_triton(*inputs, **options)


def _triton_backward(*inputs: Tensor, **options: Any) -> Gradients:
    from causalvae_fast.ops.pivot_kl.triton_kernel import pivot_kl_triton_backward

    return pivot_kl_triton_backward(*inputs, **options)


# The backward kernels compute the divergences again rather than store (B, K) of them; from the reduced ones they
# know the weight of each as soon as they have it.
def _kernels(divergences: Callable[..., PivotKL], gradients: Callable[..., Gradients], reduce: str) -> Kernels:
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        value, index, _ = divergences(*inputs, reduce=reduce)
        return (value,) if index is None else (value, index)

    def backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
        kept = dict(zip(("value", "index"), outputs, strict=False))
        return gradients(*inputs, reduce=reduce, upstream=upstreams[0], wanted=wanted, **kept)

    return Kernels(forward, backward)


def _by_backend(reduce: str) -> dict[str, Kernels]:
    return {
        "cpu": _kernels(_cpu, _cpu_backward, reduce),
        "triton": _kernels(_triton, _triton_backward, reduce),
    }


pivot_kl_ops = {
    "none": FusedOp("pivot_kl", reference=pivot_kl_reference, fake=_fake, kernels=_by_backend("none")),
    "min": FusedOp(
        "pivot_kl_min",
        reference=pivot_kl_min_reference,
        fake=_fake_min,
        kernels=_by_backend("min"),
        outputs=2,
        keeps_outputs=True,
        public="pivot_kl",
    ),
    "logsumexp": FusedOp(
        "pivot_kl_logsumexp",
        reference=pivot_kl_logsumexp_reference,
        fake=_fake_logsumexp,
        kernels=_by_backend("logsumexp"),
        keeps_outputs=True,
        public="pivot_kl",
    ),
}
