"""`mlp_sem_kl` as PyTorch sees it: an op for each activation, and for scale_tril packed or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._fused import FusedOp, Kernels, reduce
from causalvae_fast.ops._one_pass import one_pass
from causalvae_fast.ops._outputs import Gradients, Tensors
from causalvae_fast.ops.mlp_sem_kl.cpu import mlp_sem_kl_cpu
from causalvae_fast.ops.mlp_sem_kl.reference import mlp_sem_kl_reference


def _fake(pivot: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (pivot.new_empty(pivot.shape[0]),)


def _triton_kernels(activation: str, *, packed_scale_tril: bool) -> Kernels:
    def kernel(*inputs: Tensor, **options: Any) -> tuple[Tensor, Gradients]:
        # Imports Triton, which may not be there.
        from causalvae_fast.ops.mlp_sem_kl.triton_kernel import mlp_sem_kl_triton

        return mlp_sem_kl_triton(activation, *inputs, packed_scale_tril=packed_scale_tril, **options)

    def forward(*inputs: Tensor) -> tuple[Tensor]:
        return (kernel(*inputs)[0],)

    def backward(upstreams: Tensors, inputs: Tensors, outputs: Tensors, wanted: Sequence[bool]) -> Gradients:
        return kernel(*inputs, upstream=upstreams[0], wanted=wanted)[1]

    def reduced(inputs: Tensors, reduction: str, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        value, gradients = kernel(*inputs, upstream=reduction, wanted=wanted)
        return reduce(value, reduction), gradients

    return Kernels(forward, backward, reduced)


def _op(activation: str, *, packed_scale_tril: bool) -> FusedOp:
    cpu = partial(mlp_sem_kl_cpu, activation, packed_scale_tril=packed_scale_tril)
    return FusedOp(
        f"mlp_sem_kl_{activation}" + ("_packed_scale_tril" if packed_scale_tril else ""),
        reference=mlp_sem_kl_reference(activation, packed_scale_tril=packed_scale_tril),
        fake=_fake,
        kernels={
            "cpu": one_pass(cpu),
            "triton": _triton_kernels(activation, packed_scale_tril=packed_scale_tril),
        },
        public="mlp_sem_kl",
    )


mlp_sem_kl_ops = {  # by activation, and whether scale_tril is packed
    (activation, packed): _op(activation, packed_scale_tril=packed)
    for activation in ACTIVATIONS
    for packed in (False, True)
}
