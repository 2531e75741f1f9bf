"""The CPU backend of `sem_kl`: one call into the compiled kernels (csrc/ops/sem_kl)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._native import address, batched_address, empty_like, without_gaps


class SEMKLResult(NamedTuple):
    """What one call of the kernels gives."""

    value: Tensor  # (B,)
    gradients: list[Tensor | None]  # of the five inputs, None where not wanted
    total: Tensor | None  # sum_b upstream_b KL_b, whose gradients these are, where asked for


class SEMKLCall(NamedTuple):
    """One call of the kernels. Made again, it reads the same tensors, as they are then, into the same buffers."""

    run: Callable[[], None]  # it has addresses only: not to be called when the SEMKLCall is gone
    result: SEMKLResult
    inputs: tuple[Tensor, ...]  # what `run` reads: of an input with gaps, a copy


def sem_kl_cpu(*inputs: Tensor, **options: Any) -> SEMKLResult:
    """The KL of each sample, and in the same pass the gradients asked for, shaped as their inputs.

    For the arguments see `prepare_sem_kl`.
    """
    call = prepare_sem_kl(*inputs, **options)
    call.run()
    return call.result


def prepare_sem_kl(
    jac: Tensor,  # (B, d, d) or (d, d); packed, (B, P) or (P,)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d), packed (B, P)
    *,
    packed_jac: bool = False,  # P = d (d + 1) / 2 values for each matrix
    packed_scale_tril: bool = False,
    upstream: Tensor | float = 0.0,  # (B,), or one number: the gradient of the loss with respect to each KL
    wanted: Sequence[bool] = (False,) * 5,  # for each input: compute its gradient
    wants_total: bool = False,
    isa: str = "",  # the best one by default
) -> SEMKLCall:
    """The call that computes them, with buffers for its result."""
    batch, d = loc.shape
    full = packed_scale_tril or factor.dim() == 3
    jac_dims, factor_dims = 1 if packed_jac else 2, 1 if packed_scale_tril or not full else 2
    shared_jac, shared_offset = jac.dim() == jac_dims, offset.dim() == 1
    jac = without_gaps(jac, jac_dims)
    offset = without_gaps(offset, 1)
    log_sigma = without_gaps(log_sigma, 1)
    loc = without_gaps(loc, 1)
    factor = without_gaps(factor, factor_dims)
    if isinstance(upstream, Tensor):
        upstream = without_gaps(upstream, 0)
        upstream_address, known_upstream = batched_address(upstream, 0), 0.0
    else:
        upstream_address, known_upstream = (0, 0), upstream

    value = loc.new_empty(batch)
    total = loc.new_empty(()) if wants_total else None
    inputs = (jac, offset, log_sigma, loc, factor)
    grads = [empty_like(t) if w else None for t, w in zip(inputs, wanted, strict=True)]
    kernel = _native.cpu().sem_kl_float32 if loc.dtype == torch.float32 else _native.cpu().sem_kl_float64
    run = functools.partial(
        kernel,
        batch,
        d,
        batched_address(jac, jac_dims),
        shared_jac,
        packed_jac,
        batched_address(offset, 1),
        shared_offset,
        log_sigma.data_ptr(),
        batched_address(loc, 1),
        batched_address(None if full else factor, 1),
        batched_address(factor if full else None, factor_dims),
        packed_scale_tril,
        upstream_address,
        known_upstream,
        value.data_ptr(),
        address(total),
        address(grads[0]),
        address(grads[1]),
        address(grads[2]),
        address(grads[3]),
        0 if full else address(grads[4]),
        address(grads[4]) if full else 0,
        torch.get_num_threads(),
        isa,
    )
    kept = (*inputs, upstream) if isinstance(upstream, Tensor) else inputs
    return SEMKLCall(run, SEMKLResult(value, grads, total), kept)
