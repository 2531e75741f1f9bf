"""KL divergence of two Gaussians with full covariance matrices."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import (
    check_matrix,
    check_one_of,
    check_positive,
    check_positive_definite,
    check_shape,
    check_tensors,
    remembered,
)
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.gaussian_kl.autograd import gaussian_kl_ops


@in_float32
def gaussian_kl(
    loc_q: Tensor,
    loc_p: Tensor,
    *,
    scale_tril_q: Tensor | None = None,
    covariance_matrix_q: Tensor | None = None,
    scale_tril_p: Tensor | None = None,
    covariance_matrix_p: Tensor | None = None,
    validate_args: bool = False,
    backend: str | None = None,
) -> Tensor:
    """KL(q || p) of Gaussians q = N(loc_q, L_q L_q^T) and p = N(loc_p, L_p L_p^T), of each sample.

    With N = L_p^-1 L_q and u = L_p^-1 (loc_q - loc_p),

        KL = 1/2 (|N|_F^2 + |u|^2 - d) + sum_i log L_p,ii - sum_i log L_q,ii.

    Each of the two is given by its factor L or by its covariance matrix, which is factorised in the same pass.

    Samples do not influence each other: NaN in one, or a covariance matrix that is not positive definite, gives
    NaN for that one. Differentiable in every tensor, twice and more, and in forward mode, through the reference
    formula. The gradient of a covariance matrix is symmetric, as that of torch.linalg.cholesky: the G with
    dKL = sum_ij G_ij dSigma_ij for symmetric changes dSigma. Under autocast it computes in float32.

    Args:
        loc_q: means of q, (B, d).
        loc_p: means of p, (B, d) or (d,) for the whole batch.
        scale_tril_q: L_q, (B, d, d), with a positive diagonal. Only what is on and below the diagonal is used.
        covariance_matrix_q: L_q L_q^T, (B, d, d), instead. Only what is on and below the diagonal is used.
        scale_tril_p: L_p, (B, d, d) or (d, d) for the whole batch.
        covariance_matrix_p: L_p L_p^T, (B, d, d) or (d, d), instead.
        validate_args: check that the diagonals of factors are positive and covariance matrices positive definite,
            which reads the former, and factorises the latter, once more.
        backend: "reference", "cpu" or "cuda"; see `causalvae_fast.backends`.

    Returns:
        (B,), in nats, of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others.
        ValueError: if a shape, device or backend does not fit, if q or p is not given by exactly one of its two
            arguments, or, with `validate_args`, if a diagonal is not positive or a covariance matrix not positive
            definite: which argument, and which sample.

    >>> import torch
    >>> I = torch.eye(2)
    >>> gaussian_kl(torch.ones(1, 2), torch.zeros(2), scale_tril_q=I.expand(1, 2, 2), covariance_matrix_p=I)
    tensor([1.])
    """
    op, ordinary = _checked(loc_q, loc_p, scale_tril_q, covariance_matrix_q, scale_tril_p, covariance_matrix_p)
    matrix_q = scale_tril_q if scale_tril_q is not None else covariance_matrix_q
    matrix_p = scale_tril_p if scale_tril_p is not None else covariance_matrix_p
    assert matrix_q is not None
    assert matrix_p is not None
    if validate_args:
        for name, factor in {"scale_tril_q": scale_tril_q, "scale_tril_p": scale_tril_p}.items():
            if factor is not None:
                check_positive(name, factor.diagonal(dim1=-2, dim2=-1))
        covariances = {"covariance_matrix_q": covariance_matrix_q, "covariance_matrix_p": covariance_matrix_p}
        for name, matrix in covariances.items():
            if matrix is not None:
                check_positive_definite(name, matrix)
    return op(loc_q, loc_p, matrix_q, matrix_p, backend=backend, ordinary=ordinary)


@remembered
def _checked(
    loc_q: Tensor,
    loc_p: Tensor,
    scale_tril_q: Tensor | None,
    covariance_matrix_q: Tensor | None,
    scale_tril_p: Tensor | None,
    covariance_matrix_p: Tensor | None,
) -> FusedOp:
    """The op for arguments that are valid."""
    check_one_of(scale_tril_q=scale_tril_q, covariance_matrix_q=covariance_matrix_q)
    check_one_of(scale_tril_p=scale_tril_p, covariance_matrix_p=covariance_matrix_p)
    given_q = "scale_tril" if scale_tril_q is not None else "covariance_matrix"
    given_p = "scale_tril" if scale_tril_p is not None else "covariance_matrix"
    matrix_q = scale_tril_q if scale_tril_q is not None else covariance_matrix_q
    matrix_p = scale_tril_p if scale_tril_p is not None else covariance_matrix_p
    assert matrix_q is not None
    assert matrix_p is not None
    matrices = {f"{given_q}_q": matrix_q, f"{given_p}_p": matrix_p}
    check_tensors({"loc_q": loc_q, "loc_p": loc_p, **matrices})
    batch, d = check_matrix("loc_q", loc_q)
    check_shape("loc_p", loc_p, (batch, d), (d,))
    check_shape(f"{given_q}_q", matrix_q, (batch, d, d))
    check_shape(f"{given_p}_p", matrix_p, (batch, d, d), (d, d))
    return gaussian_kl_ops[given_q, given_p]
