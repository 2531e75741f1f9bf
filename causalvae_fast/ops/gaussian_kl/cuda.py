"""The CUDA backend of `gaussian_kl`: one call into the compiled kernels (csrc/ops/gaussian_kl)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _cuda
from causalvae_fast.ops._outputs import Gradients


def gaussian_kl_cuda(
    loc_q: Tensor,  # (B, d)
    loc_p: Tensor,  # (B, d) or (d,)
    matrix_q: Tensor,  # scale_tril_q or covariance_matrix_q (B, d, d)
    matrix_p: Tensor,  # scale_tril_p or covariance_matrix_p (B, d, d) or (d, d)
    *,
    covariance_q: bool,
    covariance_p: bool,
    upstream: Tensor | None = None,  # (B,) or (): the gradient of the loss with respect to each KL
    wanted: Sequence[bool] = (False,) * 4,  # for each input: compute its gradient
) -> tuple[Tensor, Gradients]:
    """The KL (B,), and the gradients asked for, shaped as their inputs; in one pass."""
    inputs = loc_q, loc_p, matrix_q, matrix_p
    value = torch.empty(loc_q.shape[:1], dtype=loc_q.dtype, device=loc_q.device)
    gradients = _cuda.outputs_like(inputs, wanted)
    _cuda.module().gaussian_kl(
        *inputs, covariance_q, covariance_p, upstream, value, *gradients, *_cuda.place(loc_q)
    )
    return value, gradients
