"""Random inputs of `gaussian_kl`, the truth in float64 to compare with, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from tolerances import RELATIVE, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.gaussian_kl.autograd import GIVEN, gaussian_kl_ops
from causalvae_fast.ops.gaussian_kl.cpu import gaussian_kl_cpu

COMBINATIONS = tuple(product(GIVEN, GIVEN))  # by what q and p are given
ALL = (True,) * 4
SHARED = ("nothing", "loc", "matrix", "both")

each_combination = pytest.mark.parametrize("given", COMBINATIONS, ids=lambda given: "q_{}-p_{}".format(*given))


class GaussianInputs(NamedTuple):
    """The tensors of `gaussian_kl`, in the order of its kernels."""

    loc_q: Tensor  # (B, d)
    loc_p: Tensor  # (B, d) or (d,)
    matrix_q: Tensor  # (B, d, d)
    matrix_p: Tensor  # (B, d, d) or (d, d)

    def map(self, function: Callable[[Tensor], Tensor]) -> GaussianInputs:
        return GaussianInputs(*map(function, self))

    @property
    def batched(self) -> tuple[bool, ...]:
        """For each input, whether every sample has its own."""
        return True, self.loc_p.dim() == 2, True, self.matrix_p.dim() == 3


class GaussianCase(NamedTuple):
    """Inputs, and by what the two Gaussians are given."""

    inputs: GaussianInputs
    given: tuple[str, str]  # "scale_tril" or "covariance_matrix" for q and p

    @property
    def op(self) -> FusedOp:
        return gaussian_kl_ops[self.given]

    def call(self, function: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Tensor:
        """The function, with the public signature, at the case's inputs or others."""
        loc_q, loc_p, matrix_q, matrix_p = tensors or self.inputs
        matrices = {f"{self.given[0]}_q": matrix_q, f"{self.given[1]}_p": matrix_p}
        return function(loc_q, loc_p, **matrices, **options)

    def kernel(self, inputs: GaussianInputs | None = None, **options: Any) -> tuple[Tensor, list[Tensor | None]]:
        covariance_q, covariance_p = (side == "covariance_matrix" for side in self.given)
        return gaussian_kl_cpu(
            *(inputs or self.inputs), covariance_q=covariance_q, covariance_p=covariance_p, **options
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """L_q and L_p in float64."""
        matrices = (m.double() for m in self.inputs[2:])
        return tuple(  # type: ignore[return-value]
            m.tril() if side == "scale_tril" else torch.linalg.cholesky(m)
            for m, side in zip(matrices, self.given, strict=True)
        )


def gaussian_case(
    batch: int,
    d: int,
    given: tuple[str, str] = ("scale_tril", "scale_tril"),
    shared: str = "nothing",
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
) -> GaussianCase:
    """Well-conditioned Gaussians, q wider than p in every direction, so that the two terms of a gradient do not
    cancel however small d is. `shared` is what of p the batch shares: "nothing", "loc", "matrix" or "both". Above
    the triangles, where nothing may be read, stand numbers that would be noticed.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def factor(*batch: int) -> Tensor:
        L = (0.3 * d**-0.5 * normal(*batch, d, d)).tril(-1)
        return L + torch.exp(torch.rand(*batch, d, generator=generator, dtype=L.dtype) - 0.5).diag_embed()

    def matrix(L: Tensor, side: str) -> Tensor:
        lower = L if side == "scale_tril" else (L @ L.mT).tril()
        return lower + torch.full_like(L, -1e3).triu(1)

    shared_loc, shared_matrix = shared in ("loc", "both"), shared in ("matrix", "both")
    inputs = GaussianInputs(
        normal(batch, d),
        normal(*(() if shared_loc else (batch,)), d),
        matrix(4 * factor(batch), given[0]),
        matrix(factor(*(() if shared_matrix else (batch,))), given[1]),
    )
    return GaussianCase(inputs.map(lambda t: t.to(dtype)), given)


def true_gaussian_kl(case: GaussianCase, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The reference in float64: the KL of each sample, and the gradients of sum_b upstream_b KL_b."""
    leaves = [t.double().detach().requires_grad_() for t in case.inputs]
    value = case.op.reference(*leaves)
    assert isinstance(value, Tensor)
    return value.detach(), torch.autograd.grad(value, leaves, upstream.double())


def gaussian_kl_terms(case: GaussianCase) -> Tensor:
    """(B,): the sum of the absolute values of the terms of each KL, which the error of a value is relative to."""
    loc_q, loc_p = (t.double() for t in case.inputs[:2])
    L_q, L_p = case.factors()
    right = torch.cat((L_q, (loc_q - loc_p).unsqueeze(-1)), -1)
    quadratic = torch.linalg.solve_triangular(L_p, right, upper=False).square().sum((-2, -1))
    log_dets = sum(L.diagonal(dim1=-2, dim2=-1).log().abs().sum(-1) for L in (L_q, L_p))
    return 0.5 * (quadratic + loc_q.shape[1]) + log_dets


def check_value(value: Tensor, expected: Tensor, case: GaussianCase, what: str = "") -> None:
    assert value.dtype == case.inputs.loc_q.dtype
    error = value_error(value, expected, gaussian_kl_terms(case))
    assert error <= RELATIVE[value.dtype], f"value {what}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor], case: GaussianCase, what: str = ""
) -> None:
    for name, gradient, truth, batched in zip(
        GaussianInputs._fields, gradients, expected, case.inputs.batched, strict=True
    ):
        if gradient is None:
            continue
        assert gradient.dtype == case.inputs.loc_q.dtype
        error = gradient_error(gradient, truth, batched=batched)
        assert error <= RELATIVE[gradient.dtype], f"gradient of {name} {what}: {error:.1e}"
