"""The CPU backend of `gaussian_kl`: one call into the compiled kernels (csrc/ops/gaussian_kl)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty_like, without_gaps


def gaussian_kl_cpu(
    loc_q: Tensor,  # (B, d)
    loc_p: Tensor,  # (B, d) or (d,)
    matrix_q: Tensor,  # scale_tril_q or covariance_matrix_q (B, d, d)
    matrix_p: Tensor,  # scale_tril_p or covariance_matrix_p (B, d, d) or (d, d)
    *,
    covariance_q: bool,
    covariance_p: bool,
    upstream: Tensor | None = None,  # (B,) or (): the gradient of the loss with respect to each KL
    wanted: Sequence[bool] = (False,) * 4,  # for each input: compute its gradient
    isa: str = "",  # the best one by default
) -> tuple[Tensor, list[Tensor | None]]:
    """The KL (B,), and the gradients asked for, shaped as their inputs; in one pass."""
    batch, d = loc_q.shape
    loc_q = without_gaps(loc_q, 1)
    loc_p = without_gaps(loc_p, 1)
    matrix_q = without_gaps(matrix_q, 2)
    matrix_p = without_gaps(matrix_p, 2)
    if upstream is not None:
        upstream = without_gaps(upstream, 0)

    value = torch.empty(batch, dtype=loc_q.dtype, device="cpu")
    inputs = (loc_q, loc_p, matrix_q, matrix_p)
    grads = [empty_like(t) if w else None for t, w in zip(inputs, wanted, strict=True)]
    module = _native.cpu()
    kernel = module.gaussian_kl_float32 if loc_q.dtype == torch.float32 else module.gaussian_kl_float64
    kernel(
        batch,
        d,
        batched_address(loc_q, 1),
        batched_address(loc_p, 1),
        loc_p.dim() == 1,
        batched_address(matrix_q, 2),
        covariance_q,
        batched_address(matrix_p, 2),
        covariance_p,
        matrix_p.dim() == 2,
        batched_address(upstream, 0),
        value.data_ptr(),
        address(grads[0]),
        address(grads[1]),
        address(grads[2]),
        address(grads[3]),
        torch.get_num_threads(),
        isa,
    )
    return value, grads
