"""The numbers of `sem_kl`: values and gradients of the kernels, on all shapes and instruction sets."""

import itertools
from typing import Any

import mpmath
import pytest
import torch
from checks import (
    ALL,
    BATCHES,
    ISAS,
    ONE_PER_KERNEL,
    SIZES,
    check_gradients,
    check_value,
    each_dtype,
    each_jac,
    each_posterior,
    value_and_gradients,
)
from covering import each_meeting
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs, sem_kl_terms, true_sem_kl, upstream_gradient
from mpmath import mp
from tolerances import RELATIVE, gradient_error, value_error
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from causalvae_fast.ops import sem_kl
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu

# Against the reference: every shape with every instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, posterior=POSTERIORS, jac=SHARING, offset=SHARING, dtype=DTYPES)
def test_reference(d: int, batch: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(batch, d, posterior, jac, offset, dtype)
    upstream = upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for isa in ISAS:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, inputs, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)
        check_value(sem_kl_cpu(*inputs, isa=isa)[0], expected, inputs, f"{isa}, no gradient")


@each_meeting(d=(*ONE_PER_KERNEL, 24), posterior=POSTERIORS, jac=SHARING, offset=SHARING, dtype=DTYPES)
def test_each_subset_of_gradients(d: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, offset, dtype)
    upstream = upstream_gradient(17, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for wanted in itertools.product((False, True), repeat=5):
        leaves = inputs.leaves(wanted)
        value = leaves.call(sem_kl)
        check_value(value.detach(), expected, inputs)
        assert value.requires_grad == any(wanted)
        if value.requires_grad:
            value.backward(upstream)
        gradients = [leaf.grad for leaf in leaves]
        assert [g is not None for g in gradients] == list(wanted)
        check_gradients(gradients, expected_gradients, inputs, str(wanted))


# Against an independent truth.


def textbook_kl(jac: Any, offset: Any, log_sigma: Any, loc: Any, L: Any) -> Any:
    """The KL from covariance matrices, in the precision of mpmath; matrices (d, d) and columns (d, 1)."""
    d = L.rows
    W = mp.matrix(d, d)
    for i in range(d):
        W[i, i] = 1
        for j in range(i):
            W[i, j] = -jac[i, j]
    inverse = W**-1
    noise = mp.diag([mp.exp(2 * log_sigma[i]) for i in range(d)])
    difference = inverse * offset - loc
    covariance_p, covariance_q = inverse * noise * inverse.T, L * L.T
    precision = covariance_p**-1
    product = precision * covariance_q
    trace = sum(product[i, i] for i in range(d))
    log_ratio = mp.log(mp.det(covariance_p)) - mp.log(mp.det(covariance_q))
    return (trace + (difference.T * precision * difference)[0] - d + log_ratio) / 2


def mp_inputs(inputs: SEMInputs, sample: int) -> list[Any]:
    """One sample's inputs as matrices of mpmath, L as a lower triangular matrix."""
    rows = [t[sample] if batched else t for t, batched in zip(inputs, inputs.batched, strict=True)]
    L = rows[4].diag() if rows[4].dim() == 1 else rows[4].tril()
    return [mp.matrix(t.tolist()) for t in (*rows[:4], L)]


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_values_against_mpmath(d: int, jac: str, posterior: str) -> None:
    inputs = sem_inputs(3, d, posterior, jac)
    with mp.workdps(50):
        expected = [float(textbook_kl(*mp_inputs(inputs, sample))) for sample in range(3)]
    check_value(inputs.call(sem_kl), torch.tensor(expected, dtype=torch.float64), inputs)


@each_posterior
def test_gradients_against_mpmath(posterior: str) -> None:
    """Every partial derivative of the textbook formula, by differences in 50 digits."""
    inputs = sem_inputs(1, 3, posterior)
    gradients = value_and_gradients(inputs, torch.ones(1, dtype=torch.float64))[1:]
    with mp.workdps(50):
        arguments = mp_inputs(inputs, 0)
        for k, gradient in enumerate(gradients):
            expected = torch.zeros_like(gradient)
            for index in itertools.product(*map(range, gradient.shape)):
                own = index[-gradient.dim() + inputs.batched[k] :]  # without the batch
                row, column = own if len(own) == 2 else (own[0], own[0] if k == 4 else 0)
                if (k == 0 and column >= row) or (k == 4 and column > row):
                    continue

                def partial(x: Any, k: int = k, row: int = row, column: int = column) -> Any:
                    changed = [matrix.copy() for matrix in arguments]
                    changed[k][row, column] = x
                    return textbook_kl(*changed)

                expected[index] = float(mpmath.diff(partial, arguments[k][row, column]))
            error = gradient_error(gradient, expected, batched=inputs.batched[k])
            assert error <= RELATIVE[torch.float64], f"gradient of {inputs._fields[k]}: {error:.1e}"


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [1, 2, 5, 16, 33])
def test_torch_distributions(d: int, jac: str, posterior: str) -> None:
    inputs = sem_inputs(17, d, posterior, jac)
    W = torch.eye(d, dtype=torch.float64) - inputs.jac.tril(-1)
    mean = torch.linalg.solve_triangular(W, inputs.offset.unsqueeze(-1), upper=False).squeeze(-1)
    noise = torch.exp(inputs.log_sigma).diag().expand_as(W)
    p = MultivariateNormal(mean, scale_tril=torch.linalg.solve_triangular(W, noise, upper=False))
    L = inputs.factor.diag_embed() if posterior == "diagonal" else inputs.factor.tril()
    expected = kl_divergence(MultivariateNormal(inputs.loc, scale_tril=L), p)
    check_value(inputs.call(sem_kl), expected, inputs)


@each_dtype
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_without_edges_it_is_the_kl_of_an_ordinary_vae(d: int, dtype: torch.dtype) -> None:
    loc, scale = sem_inputs(17, d, "diagonal", dtype=dtype)[3:]
    zeros = torch.zeros(d, dtype=dtype)
    inputs = SEMInputs(torch.zeros(d, d, dtype=dtype), zeros, zeros, loc, scale)
    q = Independent(Normal(loc.double(), scale.double()), 1)
    expected = kl_divergence(q, Independent(Normal(zeros.double(), torch.ones(d).double()), 1))
    check_value(inputs.call(sem_kl), expected, inputs)
    check_value(inputs._replace(factor=scale.diag_embed()).call(sem_kl), expected, inputs)


# Ill conditioned: a random W with entries of unit variance has an exponentially large inverse.


@each_meeting(d=(33, 64, 100, 257), jac=SHARING, posterior=POSTERIORS, dtype=DTYPES)
def test_ill_conditioned(d: int, jac: str, posterior: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(3, d, posterior, jac, dtype=dtype, jac_std=1.0)
    upstream = upstream_gradient(3, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for isa in ISAS:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, inputs, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


def test_ill_conditioned_against_mpmath_where_the_textbook_formula_fails() -> None:
    d = 48
    rounded = sem_inputs(1, d, dtype=torch.float32, jac_std=1.0)
    with mp.workdps(50):
        expected = torch.tensor([float(textbook_kl(*mp_inputs(rounded, 0)))], dtype=torch.float64)
    for dtype in DTYPES:
        inputs = rounded.map(lambda t, dtype=dtype: t.to(dtype))  # type: ignore[misc]
        check_value(inputs.call(sem_kl), expected, inputs)

        jac, offset, log_sigma, loc, factor = inputs
        inverse = torch.linalg.inv(torch.eye(d, dtype=dtype) - jac[0].tril(-1))
        L, difference = factor[0].tril(), inverse @ offset[0] - loc[0]
        precision = torch.linalg.inv(inverse @ torch.exp(2 * log_sigma).diag() @ inverse.T)
        log_ratio = 2 * (log_sigma.sum() - L.diagonal().log().sum())
        trace = (precision @ L @ L.T).trace()
        textbook = (trace + difference @ precision @ difference - d + log_ratio) / 2
        assert not value_error(textbook[None], expected, sem_kl_terms(inputs)) < 1e-4


# Reductions.


@each_meeting(reduction=("mean", "sum"), batch=(1, 17), d=ONE_PER_KERNEL, posterior=POSTERIORS, dtype=DTYPES)
def test_reduction(reduction: str, batch: int, d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(batch, d, posterior, dtype=dtype)
    upstream = torch.full((batch,), -1.5 / (batch if reduction == "mean" else 1), dtype=dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    leaves = inputs.leaves()
    value = leaves.call(sem_kl, reduction=reduction)
    terms = getattr(sem_kl_terms(inputs), reduction)()
    assert value.shape == ()
    assert value_error(value.detach(), getattr(expected, reduction)(), terms) <= RELATIVE[dtype]
    check_gradients(torch.autograd.grad(-1.5 * value, leaves), expected_gradients, inputs)


@each_posterior
@each_jac
def test_reduction_of_an_empty_batch(jac: str, posterior: str) -> None:
    leaves = sem_inputs(0, 3, posterior, jac, "shared").leaves()
    assert leaves.call(sem_kl).shape == (0,)
    assert leaves.call(sem_kl, reduction="mean").isnan()  # like Tensor.mean
    total = leaves.call(sem_kl, reduction="sum")
    assert total == 0
    assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(total, leaves))
