"""`sem_kl` as PyTorch sees it: an op for each way in which its matrices are laid out."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._one_pass import one_launch, one_pass
from causalvae_fast.ops._outputs import Gradients
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import packed_sem_kl_reference, sem_kl_reference


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _triton(*inputs: Tensor, **options: Any) -> tuple[Tensor, Gradients]:
    from causalvae_fast.ops.sem_kl.triton_kernel import sem_kl_triton  # imports Triton, which may not be there

    return sem_kl_triton(*inputs, **options)


def _op(*, packed_jac: bool, packed_scale_tril: bool) -> FusedOp:
    layout = {"packed_jac": packed_jac, "packed_scale_tril": packed_scale_tril}
    packed = [name for name, is_packed in layout.items() if is_packed]
    cpu = functools.partial(sem_kl_cpu, packed_jac=packed_jac, packed_scale_tril=packed_scale_tril)
    triton = functools.partial(_triton, **layout)
    return FusedOp(
        "_".join(["sem_kl", *packed]),
        reference=packed_sem_kl_reference(**layout) if packed else sem_kl_reference,
        fake=_fake,
        kernels={"cpu": one_pass(cpu), "triton": one_launch(triton)},
        public="sem_kl",
    )


sem_kl_op = _op(packed_jac=False, packed_scale_tril=False)
sem_kl_ops = {  # by whether jac is packed, and whether scale_tril is
    (False, False): sem_kl_op,
    (False, True): _op(packed_jac=False, packed_scale_tril=True),
    (True, False): _op(packed_jac=True, packed_scale_tril=False),
    (True, True): _op(packed_jac=True, packed_scale_tril=True),
}
