"""KL divergence of Gaussian posteriors from a linear, or linearised, structural equation model."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import (
    check_matrix,
    check_one_of,
    check_positive_factor,
    check_reduction,
    check_shape,
    check_tensors,
    remembered,
)
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._packed import packed_size
from causalvae_fast.ops.sem_kl.autograd import sem_kl_ops


@in_float32
def sem_kl(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    *,
    scale: Tensor | None = None,
    scale_tril: Tensor | None = None,
    reduction: str = "none",
    validate_args: bool = False,
    backend: str | None = None,
) -> Tensor:
    """KL(q || p) of Gaussian posteriors q = N(loc, L L^T) from the SEM's Gaussian p.

    p = N(W^-1 b, W^-1 diag(sigma^2) W^-T), W = I - A, is the distribution of z = A z + b + n with noise
    n_i ~ N(0, sigma_i^2) (Theorem 2). With M = W L and r = W loc - b,

        KL = 1/2 sum_i ((|M_i|^2 + r_i^2) / sigma_i^2 - 1) + sum_i log sigma_i - sum_i log L_ii.

    Samples do not influence each other: NaN in one gives NaN for that one. Differentiable in every tensor, twice
    and more, and in forward mode, through the reference formula. Under autocast it computes in float32.

    Args:
        jac: A, (B, d, d) or (d, d) for the whole batch, (child, parent). Only what is below the diagonal is used.
            Or packed, (B, P) or (P,) with P = d (d + 1) / 2, as `pack_tril` packs it: half the memory. What stands
            on the diagonal is not used either, and gets the gradient 0.
        offset: b, (B, d) or (d,) for the whole batch.
        log_sigma: logarithm of the noise's standard deviations, (d,).
        loc: posterior means, (B, d).
        scale: posterior standard deviations, (B, d), above 0, for L = diag(scale).
        scale_tril: L, (B, d, d), with a positive diagonal. Only what is on and below the diagonal is used. Or
            packed, (B, P).
        reduction: "none", "mean" or "sum" over the batch. With "mean" and "sum", value and gradients are computed
            in one pass, and kept for the backward pass where saved_tensors_hooks do not see them; with "none", the
            gradients are computed in the backward pass.
        validate_args: check that `scale`, or the diagonal of `scale_tril`, is positive, which reads it once more.
            Otherwise one that is not gives NaN or inf for that sample.
        backend: "reference", "cpu" or "triton"; see `causalvae_fast.backends`.

    Returns:
        (B,), or a scalar for "mean" and "sum", in nats, of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others.
        ValueError: if a shape, device, reduction or backend does not fit, if not exactly one of `scale` and
            `scale_tril` is given, or, with `validate_args`, if a scale is not positive.

    >>> import torch
    >>> A = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> kl = sem_kl(A, torch.zeros(2), torch.zeros(2), torch.zeros(1, 2), scale=torch.ones(1, 2))
    >>> kl  # 1/2 |W|_F^2 - 1
    tensor([2.])
    """
    op, ordinary = _checked(jac, offset, log_sigma, loc, scale, scale_tril, reduction)
    factor = scale if scale is not None else scale_tril
    assert factor is not None
    if validate_args:
        check_positive_factor(scale, scale_tril, loc.shape[1])
    return op.reduce((jac, offset, log_sigma, loc, factor), reduction, backend, ordinary)


@remembered
def _checked(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    loc: Tensor,
    scale: Tensor | None,
    scale_tril: Tensor | None,
    reduction: str,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_one_of(scale=scale, scale_tril=scale_tril)
    check_reduction(reduction)
    factor, name = (scale, "scale") if scale is not None else (scale_tril, "scale_tril")
    assert factor is not None
    check_tensors({"loc": loc, "jac": jac, "offset": offset, "log_sigma": log_sigma, name: factor})
    batch, d = check_matrix("loc", loc)
    packed_jac, packed_factor = _is_packed(jac, d), scale_tril is not None and scale_tril.dim() == 2
    size = packed_size(d)
    check_shape("jac", jac, (batch, d, d), (d, d), (batch, size), (size,))
    check_shape("offset", offset, (batch, d), (d,))
    check_shape("log_sigma", log_sigma, (d,))
    if scale is not None:
        check_shape(name, factor, (batch, d))
    else:
        check_shape(name, factor, (batch, d, d), (batch, size))
    return sem_kl_ops[packed_jac, packed_factor]


def _is_packed(jac: Tensor, d: int) -> bool:
    """Of two dimensions, (d, d) or (B, P), the last one tells, but for d = 1, where nothing of it is used."""
    if jac.dim() != 2:
        return jac.dim() == 1
    return bool(jac.shape[1] != d or (d == 1 and jac.shape[0] != 1))  # torch.jit.trace makes tensors of sizes
