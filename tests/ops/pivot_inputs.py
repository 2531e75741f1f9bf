"""Random inputs of `pivot_kl`, the truth in float64 to compare with, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from inputs import SEMInputs
from tolerances import RELATIVE, exponential_tolerance, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops.pivot_kl.autograd import pivot_kl_ops
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS, pivot_kl_cpu

ALL = (True,) * 5

each_reduction = pytest.mark.parametrize("reduce", REDUCTIONS)


def pivot_inputs(
    batch: int,
    pivots: int,
    d: int,
    posterior: str = "full",
    dtype: torch.dtype = torch.float64,
    *,
    jac_std: float | None = None,
    seed: int = 0,
) -> SEMInputs:
    """Well-conditioned inputs, unless `jac_std` says otherwise: jac (K, d, d), offset (K, d), log_sigma (d,),
    loc (B, d), scale (B, d) or scale_tril (B, d, d). The pivots lie on one side of the samples, and these are
    wider than the noise, so that what is summed up to a gradient does not cancel however small d is. Where nothing
    may be read stand numbers that would be noticed.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A = (d**-0.5 if jac_std is None else jac_std) * normal(pivots, d, d)
    A = A.tril(-1) + torch.full_like(A, 1e3).triu()
    factor = 1 + 0.5 * torch.exp(0.5 * normal(batch, d))
    if posterior == "full":
        L = (d**-0.5 * normal(batch, d, d)).tril(-1) + torch.full((batch, d, d), -1e3, dtype=A.dtype).triu(1)
        factor = L + factor.diag_embed()
    inputs = SEMInputs(A, normal(pivots, d) + 2, 0.3 * normal(d) - 0.7, normal(batch, d), factor)
    return inputs.map(lambda t: t.to(dtype))


def upstream_for(inputs: SEMInputs, reduce: str, seed: int = 1) -> Tensor:
    """(B, K) or (B,), away from 0 and positive: sums over the batch do not cancel."""
    shape = (len(inputs.loc), len(inputs.jac)) if reduce == "none" else (len(inputs.loc),)
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.5 + u).to(inputs.loc.dtype)


def call(function: Callable[..., Any], inputs: SEMInputs, **options: Any) -> Any:
    """The function, with the public signature, at these inputs."""
    return function(*inputs[:4], **{inputs.factor_name: inputs.factor}, **options)


def first(outputs: Any) -> Tensor:
    """The divergences, without the indices of "min"."""
    value = outputs if isinstance(outputs, Tensor) else outputs[0]
    assert isinstance(value, Tensor)
    return value


def kernel(
    inputs: SEMInputs, reduce: str, upstream: Tensor, isa: str = ""
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Value, index and all gradients."""
    value, index, _ = pivot_kl_cpu(*inputs, reduce=reduce, isa=isa)
    gradients = pivot_kl_cpu(
        *inputs, reduce=reduce, upstream=upstream, value=value, index=index, wanted=ALL, isa=isa
    ).gradients
    return value, index, gradients


def true_pivot_kl(inputs: SEMInputs, reduce: str, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The reference in float64: the values, and the gradients of sum upstream value."""
    leaves = inputs.map(torch.Tensor.double).leaves()
    value = first(pivot_kl_ops[reduce].reference(*leaves))
    return value.detach(), torch.autograd.grad(value, leaves, upstream.double())


def pivot_kl_terms(inputs: SEMInputs, reduce: str) -> Tensor:
    """The sum of the absolute values of the terms of each KL; with a reduction, the smallest of a sample."""
    jac, offset, log_sigma, loc, factor = inputs.map(torch.Tensor.double)
    L = factor.diag_embed() if factor.dim() == 2 else factor.tril()
    A = jac.tril(-1)
    residual = loc[:, None] - torch.einsum("kij,bj->bki", A, loc) - offset
    spread = (L[:, None] - A @ L[:, None]).square().sum(-1) + residual.square()
    log_det = L.diagonal(dim1=-2, dim2=-1).log().abs().sum(-1)
    mahalanobis = (torch.exp(-2 * log_sigma) * spread).sum(-1)
    terms = 0.5 * (mahalanobis + loc.shape[1]) + log_sigma.abs().sum() + log_det[:, None]
    return terms if reduce == "none" else terms.amin(1)


def check_value(value: Tensor, expected: Tensor, inputs: SEMInputs, reduce: str, what: str = "") -> None:
    assert value.dtype == inputs.loc.dtype
    error = value_error(value, expected, pivot_kl_terms(inputs, reduce))
    assert error <= RELATIVE[value.dtype], f"value {what}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor], inputs: SEMInputs, reduce: str, what: str = ""
) -> None:
    """Relative to the largest element of each sample's gradient, or of the whole one where samples are summed up:
    for "min", a pivot may be the closest of no sample.
    """
    dtype = inputs.loc.dtype
    tolerance = RELATIVE[dtype]
    if reduce == "logsumexp":
        tolerance = exponential_tolerance(dtype, pivot_kl_terms(inputs, reduce))
    per_sample = (False, False, False, True, True)
    for name, gradient, truth, batched in zip(SEMInputs._fields, gradients, expected, per_sample, strict=True):
        if gradient is None:
            continue
        assert gradient.dtype == dtype
        error = gradient_error(gradient, truth, batched=batched)
        assert error <= tolerance, f"gradient of {name} {what}: {error:.1e}"
