"""Contenders from packages that need not be installed: JAX and GPyTorch; without them their tests are skipped."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

OPTIONAL = ("jax", "gpytorch")


def fix_threads(threads: int) -> None:
    """For XLA, whose pool has as many threads as NPROC says; to be called before JAX is used first. Its flags do
    not limit that pool. torch and the kernels follow torch.set_num_threads.
    """
    os.environ["NPROC"] = str(threads)


def installed(contender: str) -> bool:
    return contender not in OPTIONAL or importlib.util.find_spec(contender) is not None


def parameter(contender: str) -> Any:
    """The parameter of a contender, whose test is skipped where it is not installed."""
    reason = f"{contender} is not installed: pip install '.[bench]'"
    return pytest.param(contender, marks=pytest.mark.skipif(not installed(contender), reason=reason))


def jax_sem_kl(tensors: tuple[Tensor, ...], backward: bool) -> Callable[[], tuple[Any, ...]]:
    """The formula of `sem_kl` under jax.jit, and jax.value_and_grad of it, of arrays that JAX already has.

    At its best: the triangles are clean, so nothing is cut, and the gradients have what they have above the
    diagonal.
    """
    return _jax_calls(_jax_mean_kl, tensors, backward)


def jax_mlp_sem_kl(tensors: tuple[Tensor, ...], backward: bool) -> Callable[[], tuple[Any, ...]]:
    """The formula of `mlp_sem_kl` with tanh, likewise."""
    import jax.numpy as jnp

    def loss(
        pivot: Any,
        w_in: Any,
        b_in: Any,
        w_out: Any,
        b_out: Any,
        edges: Any,
        log_sigma: Any,
        loc: Any,
        factor: Any,
    ) -> Any:
        weights = w_in * edges[:, None]
        units = jnp.tanh(jnp.einsum("bj,ikj->bik", pivot, weights) + b_in)
        jac = jnp.einsum("bik,ikj->bij", (1 - units * units) * w_out, weights)
        offset = (units * w_out).sum(-1) + b_out - pivot
        return _jax_mean_kl(jac, offset, log_sigma, loc - pivot, factor)

    return _jax_calls(loss, tensors, backward)


def _jax_mean_kl(jac: Any, offset: Any, log_sigma: Any, loc: Any, factor: Any) -> Any:
    import jax.numpy as jnp

    def times_jac(matrix: Any, vectors: Any) -> Any:
        return vectors @ matrix.T if matrix.ndim == 2 else jnp.einsum("bij,bj->bi", matrix, vectors)

    residual = loc - offset - times_jac(jac, loc)
    if factor.ndim == 2:
        spread = factor**2 + times_jac(jac**2, factor**2)
        log_det = jnp.log(factor).sum(-1)
    else:
        spread = ((factor - jac @ factor) ** 2).sum(-1)
        log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    mahalanobis = (jnp.exp(-2 * log_sigma) * (spread + residual**2)).sum(-1)
    return (0.5 * (mahalanobis - loc.shape[-1]) + log_sigma.sum() - log_det).mean()


def _jax_calls(
    loss: Callable[..., Any], tensors: tuple[Tensor, ...], backward: bool
) -> Callable[[], tuple[Any, ...]]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    arrays = [jnp.asarray(t.numpy()) for t in tensors]
    if not backward:
        value = jax.jit(loss)
        return lambda: (jax.block_until_ready(value(*arrays)),)
    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))

    def step() -> tuple[Any, ...]:
        value, gradients = jax.block_until_ready(value_and_grad(*arrays))
        return value, *gradients

    return step


def as_tensor(result: Any) -> Tensor:
    """A result of a contender, of whatever kind."""
    return result if isinstance(result, Tensor) else torch.from_numpy(np.array(result))


def gpytorch_normal(
    loc: Tensor, *, scale_tril: Tensor | None = None, covariance_matrix: Tensor | None = None
) -> Any:
    """A multivariate normal of GPyTorch, whose KL divergence torch.distributions.kl_divergence finds. Where the
    factor is known, it is told so.
    """
    from gpytorch.distributions import MultivariateNormal
    from linear_operator.operators import CholLinearOperator, TriangularLinearOperator

    covariance: Any = covariance_matrix
    if scale_tril is not None:
        covariance = CholLinearOperator(TriangularLinearOperator(scale_tril))
    return MultivariateNormal(loc, covariance, validate_args=False)
