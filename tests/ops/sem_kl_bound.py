"""Ill-conditioned SEMs, the truth about them in 50 digits, and how far rounding may take `sem_kl` from it.

The bound. u is the unit roundoff (2^-24 in float32), gamma_n = n u / (1 - n u), |X| the matrix of absolute values.
A sum of n products is computed to within gamma_n times the sum of their absolute values, in whatever order
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). With P = D^-1, M = W L and r = W m - b, the
computed M and r are off by no more than

    E = gamma_d |W| |L|          e = gamma_{d+1} (|W| |m| + |b|)

so that the squares and their sums, 2 d + 4 operations deep (over the elements of a row, then over the rows), give

    |dKL| <= sum_ij P_i (|M_ij| E_ij + E_ij^2 / 2) + sum_i P_i (|r_i| e_i + e_i^2 / 2)
             + gamma_{2d+4} / 2 sum_i P_i (|M_i|^2 + r_i^2)
             + gamma_d + gamma_4 (d / 2 + |sum_i log sigma_i| + |log det L|)

where gamma_d stands for the product of the L_ii whose logarithm is taken. It knows the condition of the problem:
where W L cancels, |W| |L| is larger than |M|. Sigma, its inverse and their condition numbers do not occur. The
gradients dm = W^T P r and dL = W^T P M - diag(1 / L_ii) are products of three matrices, and carry gamma_{2d+6}
times the same products of absolute values, element by element; so does ds_j = s_j sum_i W_ij^2 P_i - 1 / s_j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from inputs import SEMInputs
from mpmath import mp
from torch import Tensor

DIGITS = 50
UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def ill_conditioned(d: int, posterior: str, seed: int) -> SEMInputs:
    """One sample, in float32: log_sigma spread over 12 nats, elements of A up to 10, and a posterior as
    encoders give it, with standard deviations from 0.05 to 1.
    """
    generator = torch.Generator().manual_seed(1000 * d + seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    log_sigma = torch.linspace(-6, 6, d)[torch.randperm(d, generator=generator)]
    scale = torch.exp(uniform(-3, 0, 1, d))
    L = scale.diag_embed() + (uniform(-1, 1, 1, d, d) * d**-0.5).tril(-1)
    jac = uniform(-10, 10, 1, d, d).tril(-1)
    return SEMInputs(
        jac, uniform(-3, 3, 1, d), log_sigma, uniform(-3, 3, 1, d), scale if posterior == "diagonal" else L
    )


class Truth(NamedTuple):
    value: Any  # of mpmath
    loc_gradient: list[Any]  # (d,)
    factor_gradient: list[list[Any]]  # (d, d) on and below the diagonal, or (1, d) of a diagonal posterior


def truth(inputs: SEMInputs) -> Truth:
    """In 50 digits. These are sums of products, so nearly all digits are right. `textbook` is independent."""
    with mp.workdps(DIGITS):
        A, b, log_sigma, m, L = (_exact(t) for t in _one_sample(inputs))
        d = len(b)
        P = [mp.exp(-2 * s) for s in log_sigma]
        M = [
            [L[i][j] - mp.fdot(A[i][j:i], [L[k][j] for k in range(j, i)]) for j in range(i + 1)] for i in range(d)
        ]
        r = [m[i] - mp.fdot(A[i][:i], m[:i]) - b[i] for i in range(d)]
        squares = mp.fsum(P[i] * (mp.fsum(x * x for x in M[i]) + r[i] ** 2) for i in range(d))
        value = (squares - d) / 2 + mp.fsum(log_sigma) - mp.fsum(mp.log(L[i][i]) for i in range(d))

        def adjoint(j: int, y: Sequence[Any], first: int) -> Any:
            """(W^T y)_j for y whose elements before `first` are 0."""
            rest = range(max(j + 1, first), d)
            return (y[j] if j >= first else 0) - mp.fdot([A[i][j] for i in rest], [y[i] for i in rest])

        loc = [adjoint(j, [p * x for p, x in zip(P, r, strict=True)], 0) for j in range(d)]
        if inputs.factor.dim() == 2:
            spread = [P[j] + mp.fsum(A[i][j] ** 2 * P[i] for i in range(j + 1, d)) for j in range(d)]
            factor = [[L[j][j] * spread[j] - 1 / L[j][j] for j in range(d)]]
        else:
            columns = [[P[i] * M[i][j] if i >= j else mp.mpf(0) for i in range(d)] for j in range(d)]
            factor = [
                [adjoint(i, columns[j], j) - (1 / L[i][i] if i == j else 0) for j in range(i + 1)]
                for i in range(d)
            ]
        return Truth(value, loc, factor)


def textbook(inputs: SEMInputs, digits: int) -> Any:
    """The KL from the covariance matrices, which needs about as many digits as the condition number has."""
    from test_sem_kl import mp_inputs, textbook_kl

    with mp.workdps(digits):
        return textbook_kl(*mp_inputs(inputs, 0))


def error(found: Tensor, expected: Any) -> float:
    """|found - expected| of a number, without rounding the truth first."""
    with mp.workdps(DIGITS):
        return float(abs(mp.mpf(found.item()) - expected))


def gradient_errors(found: Tensor, expected: Sequence[Any]) -> Tensor:
    """Of each element; `expected` is nested as `found`, and may stop at the diagonal."""
    rows = found if found.dim() == 2 else found[None]
    nested = expected if isinstance(expected[0], list) else [expected]
    out = torch.zeros(rows.shape, dtype=torch.float64)
    for i, row in enumerate(nested):
        for j, x in enumerate(row):
            out[i, j] = error(rows[i, j], x)
    return out


class Bound(NamedTuple):
    value: float
    loc_gradient: Tensor  # (1, d)
    factor_gradient: Tensor  # (d, d), or (1, d)


def bound(inputs: SEMInputs, dtype: torch.dtype) -> Bound:
    """Of the errors of a computation in `dtype`; see the top of this file. Computed in float64."""
    A, b, log_sigma, m, L = (t.double() for t in _one_sample(inputs))
    d = len(b)

    def gamma(n: int) -> float:
        return n * UNIT[dtype] / (1 - n * UNIT[dtype])

    W = torch.eye(d, dtype=torch.float64) - A
    P = torch.exp(-2 * log_sigma)
    M, r = W @ L, W @ m - b
    size_M, size_r = W.abs() @ L.abs(), W.abs() @ m.abs() + b.abs()
    E, e = gamma(d) * size_M, gamma(d + 1) * size_r
    products = (P * ((M.abs() * E + E * E / 2).sum(1) + r.abs() * e + e * e / 2)).sum()
    squares = 0.5 * (P * (M.square().sum(1) + r.square())).sum()
    log_det = L.diagonal().log().sum()
    rest = gamma(d) + gamma(4) * (d / 2 + log_sigma.sum().abs() + log_det.abs())
    value = products + gamma(2 * d + 4) * squares + rest

    inverse = (1 / L.diagonal()).diag()
    loc = gamma(2 * d + 6) * (W.abs().T @ (P * size_r))[None]
    if inputs.factor.dim() == 2:
        spread = (P @ W.square()) * L.diagonal()
        factor = gamma(2 * d + 6) * (spread + 1 / L.diagonal())[None]
    else:
        factor = gamma(2 * d + 6) * (W.abs().T @ (P[:, None] * size_M) + inverse).tril()
    return Bound(value.item(), loc, factor)


def _one_sample(inputs: SEMInputs) -> tuple[Tensor, ...]:
    jac, offset, log_sigma, loc, factor = inputs
    L = factor[0].diag() if factor.dim() == 2 else factor[0].tril()
    return jac[0].tril(-1), offset[0], log_sigma, loc[0], L


def _exact(tensor: Tensor) -> Any:
    if tensor.dim() == 0:
        return mp.mpf(tensor.item())
    return [_exact(t) for t in tensor]
