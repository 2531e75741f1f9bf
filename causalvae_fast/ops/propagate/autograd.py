"""`propagate` as PyTorch sees it."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp, Kernels
from causalvae_fast.ops.propagate.cpu import propagate_backward_cpu, propagate_cpu
from causalvae_fast.ops.propagate.cuda import propagate_backward_cuda, propagate_cuda
from causalvae_fast.ops.propagate.reference import propagate_reference


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
    loc = offset.new_empty(jac.shape[:-1] if jac.dim() == 3 else offset.shape)
    return loc, jac.new_empty(jac.shape)


# The backward pass needs both outputs: computing them again would cost as much as it does.
propagate_op = FusedOp(
    "propagate",
    reference=propagate_reference,
    fake=_fake,
    kernels={
        "cpu": Kernels(propagate_cpu, propagate_backward_cpu),
        "cuda": Kernels(propagate_cuda, propagate_backward_cuda),
    },
    outputs=2,
    keeps_outputs=True,
)
