"""`gaussian_kl` as PyTorch sees it: an op for each combination of what the two Gaussians are given by."""

from __future__ import annotations

from functools import partial
from itertools import product

from torch import Tensor

from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops._one_pass import of_samples
from causalvae_fast.ops.gaussian_kl.cpu import gaussian_kl_cpu
from causalvae_fast.ops.gaussian_kl.cuda import gaussian_kl_cuda
from causalvae_fast.ops.gaussian_kl.reference import cholesky, gaussian_kl_of_factors

GIVEN = ("scale_tril", "covariance_matrix")


def _fake(loc_q: Tensor, loc_p: Tensor, matrix_q: Tensor, matrix_p: Tensor) -> tuple[Tensor]:
    return (loc_q.new_empty(loc_q.shape[0]),)


def _op(given_q: str, given_p: str) -> FusedOp:
    covariance_q, covariance_p = given_q == GIVEN[1], given_p == GIVEN[1]

    def reference(loc_q: Tensor, loc_p: Tensor, matrix_q: Tensor, matrix_p: Tensor) -> Tensor:
        L_q = cholesky(matrix_q) if covariance_q else matrix_q
        L_p = cholesky(matrix_p) if covariance_p else matrix_p
        return gaussian_kl_of_factors(loc_q, loc_p, L_q, L_p)

    kernels = {
        "cpu": partial(gaussian_kl_cpu, covariance_q=covariance_q, covariance_p=covariance_p),
        "cuda": partial(gaussian_kl_cuda, covariance_q=covariance_q, covariance_p=covariance_p),
    }
    return FusedOp(
        f"gaussian_kl_{given_q}_{given_p}",
        reference=reference,
        fake=_fake,
        kernels={name: of_samples(kernel) for name, kernel in kernels.items()},
        public="gaussian_kl",
    )


gaussian_kl_ops = {given: _op(*given) for given in product(GIVEN, GIVEN)}  # by what q and p are given by
