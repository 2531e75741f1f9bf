"""Mean correlation coefficient: how well each factor is carried by a latent of its own."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from causalvae_fast.metrics._assignment import assign
from causalvae_fast.metrics._checks import check_latents_and_factors


class MCC(NamedTuple):
    """The mean, and what it is the mean of.

    Attributes:
        mcc: mean of `correlations`, from 0 to 1, the best.
        correlations: (m,) float64, |correlation| of each factor with its latent; 0 for a factor without one.
        assignment: for each factor, the latent that is matched to it; -1 for none, where there are fewer latents
            than factors. With as many of both it is a permutation, and `latents[:, assignment]` is in the order
            of the factors.
    """

    mcc: float
    correlations: Tensor
    assignment: tuple[int, ...]


def mcc(latents: Tensor, factors: Tensor, method: Literal["pearson", "spearman"] = "pearson") -> MCC:
    """Mean over the factors of |correlation| with the latent that each is matched to.

    Factors and latents are matched one to one so that the sum is greatest (linear assignment). "pearson" is 1 if
    each latent is a factor up to its order, scale, sign and mean; "spearman", which correlates ranks (ties get
    their mean rank), also if it is a monotone function of it.

    Args:
        latents: (N, k), finite. A latent that does not vary correlates with nothing.
        factors: (N, m), finite, each with at least two different values.
        method: "pearson" or "spearman".

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit, a value is not finite, a factor is constant, or `method` is neither.

    Source: Hyvarinen and Morioka, Unsupervised feature extraction by time-contrastive learning and nonlinear ICA
    (2016).

    >>> z = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> mcc(z, -3 * z[:, [1, 0]]).assignment
    (1, 0)
    """
    check_latents_and_factors(latents, factors)
    if method not in ("pearson", "spearman"):
        raise ValueError(f'method must be "pearson" or "spearman", got {method!r}')
    x, y = latents.detach().cpu().double(), factors.detach().cpu().double()
    if method == "spearman":
        x, y = _ranks(x), _ranks(y)
    correlation = (_unit_columns(y).mT @ _unit_columns(x)).abs()  # (m, k)
    m, k = correlation.shape
    if k >= m:
        assignment = assign(-correlation)
    else:
        factor_of = assign(-correlation.mT)
        assignment = [factor_of.index(j) if j in factor_of else -1 for j in range(m)]
    matched = torch.stack(
        [correlation[j, i] if i >= 0 else correlation.new_zeros(()) for j, i in enumerate(assignment)]
    )
    return MCC(float(matched.mean()), matched, tuple(assignment))


def _unit_columns(x: Tensor) -> Tensor:
    """Columns (N, k) with mean 0 and norm 1; those that do not vary are zero."""
    centred = x - x.mean(0)
    norm = centred.norm(dim=0)
    return torch.where((x.amax(0) > x.amin(0)) & (norm > 0), centred / norm, 0.0)


def _ranks(x: Tensor) -> Tensor:
    """The rank of each value in its column (N, k); equal values share the mean of theirs."""
    columns = []
    for column in x.mT:
        _, inverse, counts = column.unique(return_inverse=True, return_counts=True)
        columns.append((counts.cumsum(0) - (counts - 1) / 2)[inverse])
    return torch.stack(columns, 1).double()
