"""`mlp_sem_kl` as PyTorch sees it: an op for each activation, and for scale_tril packed or not."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._one_pass import one_launch, one_pass
from causalvae_fast.ops._outputs import Gradients
from causalvae_fast.ops.mlp_sem_kl.cpu import mlp_sem_kl_cpu
from causalvae_fast.ops.mlp_sem_kl.reference import mlp_sem_kl_reference


def _fake(pivot: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (pivot.new_empty(pivot.shape[0]),)


def _triton(*inputs: Any, **options: Any) -> tuple[Tensor, Gradients]:
    # Imports Triton, which may not be there.
    from causalvae_fast.ops.mlp_sem_kl.triton_kernel import mlp_sem_kl_triton

    return mlp_sem_kl_triton(*inputs, **options)


def _op(activation: str, *, packed_scale_tril: bool) -> FusedOp:
    cpu, triton = (
        partial(kernel, activation, packed_scale_tril=packed_scale_tril) for kernel in (mlp_sem_kl_cpu, _triton)
    )
    return FusedOp(
        f"mlp_sem_kl_{activation}" + ("_packed_scale_tril" if packed_scale_tril else ""),
        reference=mlp_sem_kl_reference(activation, packed_scale_tril=packed_scale_tril),
        fake=_fake,
        kernels={"cpu": one_pass(cpu), "triton": one_launch(triton)},
        public="mlp_sem_kl",
    )


mlp_sem_kl_ops = {  # by activation, and whether scale_tril is packed
    (activation, packed): _op(activation, packed_scale_tril=packed)
    for activation in ACTIVATIONS
    for packed in (False, True)
}
