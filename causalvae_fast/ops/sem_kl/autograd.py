"""`sem_kl` as PyTorch sees it: an op for each way in which its matrices are laid out."""

from __future__ import annotations

import functools

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._one_pass import one_pass
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import packed_sem_kl_reference, sem_kl_reference


def _fake(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> tuple[Tensor]:
    return (loc.new_empty(loc.shape[0]),)


def _op(*, packed_jac: bool, packed_scale_tril: bool) -> FusedOp:
    layout = {"packed_jac": packed_jac, "packed_scale_tril": packed_scale_tril}
    packed = [name for name, is_packed in layout.items() if is_packed]
    return FusedOp(
        "_".join(["sem_kl", *packed]),
        reference=packed_sem_kl_reference(**layout) if packed else sem_kl_reference,
        fake=_fake,
        kernels=one_pass(
            functools.partial(sem_kl_cpu, packed_jac=packed_jac, packed_scale_tril=packed_scale_tril)
        ),
        public="sem_kl",
    )


sem_kl_op = _op(packed_jac=False, packed_scale_tril=False)
sem_kl_ops = {  # by whether jac is packed, and whether scale_tril is
    (False, False): sem_kl_op,
    (False, True): _op(packed_jac=False, packed_scale_tril=True),
    (True, False): _op(packed_jac=True, packed_scale_tril=False),
    (True, True): _op(packed_jac=True, packed_scale_tril=True),
}
