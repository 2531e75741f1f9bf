"""`ancestral_sample` as PyTorch sees it: an op for each kind of mechanism, and each activation."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops.ancestral_sample.cpu import (
    linear_backward_cpu,
    linear_cpu,
    quadratic_backward_cpu,
    quadratic_cpu,
)
from causalvae_fast.ops.ancestral_sample.cuda import (
    linear_backward_cuda,
    linear_cuda,
    mlp_backward_cuda,
    mlp_cuda,
    quadratic_backward_cuda,
    quadratic_cuda,
)
from causalvae_fast.ops.ancestral_sample.mlp_cpu import mlp_backward_cpu, mlp_cpu
from causalvae_fast.ops.ancestral_sample.reference import (
    linear_reference,
    mlp_reference,
    quadratic_reference,
)


def _fake(noise: Tensor, *others: Tensor) -> tuple[Tensor]:
    return (noise.new_empty(noise.shape),)


linear_op = FusedOp(
    "ancestral_sample_linear",
    reference=linear_reference,
    fake=_fake,
    kernels={
        "cpu": Kernels(linear_cpu, linear_backward_cpu),
        "cuda": Kernels(linear_cuda, linear_backward_cuda),
    },
    keeps_outputs=True,
    public="ancestral_sample",
)

quadratic_op = FusedOp(
    "ancestral_sample_quadratic",
    reference=quadratic_reference,
    fake=_fake,
    kernels={
        "cpu": Kernels(quadratic_cpu, quadratic_backward_cpu),
        "cuda": Kernels(quadratic_cuda, quadratic_backward_cuda),
    },
    keeps_outputs=True,
    public="ancestral_sample",
)

mlp_ops = {
    activation: FusedOp(
        f"mlp_ancestral_sample_{activation}",
        reference=mlp_reference(activation),
        fake=_fake,
        kernels={
            "cpu": Kernels(partial(mlp_cpu, activation), partial(mlp_backward_cpu, activation)),
            "cuda": Kernels(partial(mlp_cuda, activation), partial(mlp_backward_cuda, activation)),
        },
        keeps_outputs=True,
        public="mlp_ancestral_sample",
    )
    for activation in ACTIVATIONS
}
