"""The Gaussian of a linear, or linearised, structural equation model."""

from __future__ import annotations

from torch import Tensor

from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import check_shape, check_square, check_tensors, remembered
from causalvae_fast.ops.propagate.autograd import propagate_op


@in_float32
def propagate(
    jac: Tensor,
    offset: Tensor,
    log_sigma: Tensor,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and factor of the Gaussian N(loc, scale_tril scale_tril^T) of the SEM z = A z + b + n.

    The noise is n_i ~ N(0, sigma_i^2). With W = I - A, unit lower triangular (Theorem 2),

        loc = W^-1 b        scale_tril = W^-1 diag(sigma)

    in one solve by substitution, row after row: row i is e_i sigma_i + sum_{j<i} A_ij row_j. No inverse is formed.

    Samples do not influence each other: NaN in one gives NaN for that one. Differentiable in every tensor, twice
    and more, and in forward mode, through the reference formula. Under autocast it computes in float32.

    Args:
        jac: A, (B, d, d) or (d, d) for the whole batch, (child, parent). Only what is below the diagonal is used.
        offset: b, (B, d) or (d,) for the whole batch.
        log_sigma: logarithm of the noise's standard deviations, (d,).
        backend: "reference", "cpu" or "cuda"; see `causalvae_fast.backends`.

    Returns:
        loc (B, d) and scale_tril (B, d, d), lower triangular with a positive diagonal and zeros above it, as
        `torch.distributions.MultivariateNormal` takes them; (d,) and (d, d) if neither `jac` nor `offset` has a
        batch. If only `offset` has one, all samples have the same scale_tril: it is computed once and expanded, so
        clone it before writing into it. Of the dtype of the inputs (float32 or float64).

    Raises:
        TypeError: if an argument is not a tensor, or is not float32 or float64 as all others.
        ValueError: if a shape, device or backend does not fit.

    >>> import torch
    >>> A = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> loc, scale_tril = propagate(A, torch.tensor([1.0, 0.5]), torch.zeros(2))
    >>> loc
    tensor([1.0000, 2.5000])
    >>> scale_tril
    tensor([[1., 0.],
            [2., 1.]])
    """
    expanded, ordinary = _checked(jac, offset, log_sigma)
    loc, scale_tril = propagate_op(jac, offset, log_sigma, backend=backend, ordinary=ordinary)
    return loc, scale_tril if expanded is None else scale_tril.expand(expanded)


@remembered
def _checked(jac: Tensor, offset: Tensor, log_sigma: Tensor) -> tuple[int, int, int] | None:
    """The shape to which scale_tril is expanded, if it is."""
    check_tensors({"jac": jac, "offset": offset, "log_sigma": log_sigma})
    batch, d = check_square("jac", jac)
    if batch is None and offset.dim() == 2:
        batch = offset.shape[0]
    check_shape("offset", offset, (d,), *(() if batch is None else ((batch, d),)))
    check_shape("log_sigma", log_sigma, (d,))
    return None if batch is None or jac.dim() == 3 else (batch, d, d)
