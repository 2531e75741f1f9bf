"""Random inputs of the ops, and the truth in float64 to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

POSTERIORS = ("diagonal", "full")
SHARING = ("per_sample", "shared")  # of jac or offset by the batch
DTYPES = (torch.float32, torch.float64)


class SEMInputs(NamedTuple):
    """The tensors of `sem_kl`, in the order of its kernels."""

    jac: Tensor  # (B, d, d) or (d, d)
    offset: Tensor  # (B, d) or (d,)
    log_sigma: Tensor  # (d,)
    loc: Tensor  # (B, d)
    factor: Tensor  # scale (B, d) or scale_tril (B, d, d)

    def map(self, function: Callable[[Tensor], Tensor]) -> SEMInputs:
        return SEMInputs(*map(function, self))

    def leaves(self, wanted: Sequence[bool] = (True,) * 5) -> SEMInputs:
        """Copies, with the same strides, of which some require a gradient."""
        return SEMInputs(*(t.detach().clone().requires_grad_(w) for t, w in zip(self, wanted, strict=True)))

    @property
    def factor_name(self) -> str:
        return "scale" if self.factor.dim() == 2 else "scale_tril"

    @property
    def batched(self) -> tuple[bool, ...]:
        """For each input, whether every sample has its own."""
        return self.jac.dim() == 3, self.offset.dim() == 2, False, True, True

    def call(self, op: Callable[..., Tensor], **options: Any) -> Tensor:
        """The op, with its public signature, at these inputs."""
        return op(*self[:4], **{self.factor_name: self.factor}, **options)


def sem_inputs(
    batch: int,
    d: int,
    posterior: str = "full",
    jac: str = "per_sample",
    offset: str = "per_sample",
    dtype: torch.dtype = torch.float64,
    *,
    jac_std: float | None = None,
    seed: int = 0,
) -> SEMInputs:
    """Well-conditioned inputs, unless `jac_std` says otherwise (a random W of unit variance has an exponentially
    large inverse). Where nothing may be read, above the triangles, stand numbers that would be noticed.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    std = d**-0.5 if jac_std is None else jac_std
    A = std * normal(*(() if jac == "shared" else (batch,)), d, d)
    A = A.tril(-1) + torch.full_like(A, 1e3).triu()
    b = normal(*(() if offset == "shared" else (batch,)), d)
    log_sigma, loc, factor = 0.5 * normal(d), normal(batch, d), torch.exp(0.5 * normal(batch, d))
    if posterior == "full":
        L = (d**-0.5 * normal(batch, d, d)).tril(-1) + torch.full((batch, d, d), -1e3, dtype=A.dtype).triu(1)
        factor = L + factor.diag_embed()
    return SEMInputs(A, b, log_sigma, loc, factor).map(lambda t: t.to(dtype))


def upstream_gradient(batch: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """(B,), away from 0, of both signs."""
    u = torch.rand(batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(u < 0.5, -0.5 - u, u).to(dtype)


def true_sem_kl(inputs: SEMInputs, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The reference in float64: the KL of each sample, and the gradients of sum_b upstream_b KL_b."""
    leaves = inputs.map(torch.Tensor.double).leaves()
    value = sem_kl_reference(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves, upstream.double())


def sem_kl_terms(inputs: SEMInputs) -> Tensor:
    """(B,): the sum of the absolute values of the terms of each KL, which the error of a value is relative to."""
    jac, offset, log_sigma, loc, factor = inputs.map(torch.Tensor.double)
    L = factor.diag_embed() if factor.dim() == 2 else factor.tril()
    A = jac.tril(-1)
    residual = loc - (A @ loc.unsqueeze(-1)).squeeze(-1) - offset
    spread = (L - A @ L).square().sum(-1) + residual.square()
    log_det = L.diagonal(dim1=-2, dim2=-1).log().abs().sum(-1)
    mahalanobis = (torch.exp(-2 * log_sigma) * spread).sum(-1)
    return 0.5 * (mahalanobis + loc.shape[1]) + log_sigma.abs().sum() + log_det
