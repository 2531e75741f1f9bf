"""The numbers of `gaussian_kl`: values and gradients of the kernels, on all shapes and instruction sets."""

import itertools
import math
from typing import Any

import mpmath
import pytest
import torch
from checks import BATCHES, ISAS, ONE_PER_KERNEL, SIZES, each_dtype, each_kernel
from covering import each_meeting
from gaussian_inputs import (
    ALL,
    COMBINATIONS,
    SHARED,
    GaussianCase,
    GaussianInputs,
    check_gradients,
    check_value,
    each_combination,
    gaussian_case,
    true_gaussian_kl,
)
from inputs import DTYPES, upstream_gradient
from mpmath import mp
from tolerances import RELATIVE, gradient_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import gaussian_kl
from causalvae_fast.ops.gaussian_kl.autograd import GIVEN

# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, q=GIVEN, p=GIVEN, shared=SHARED, dtype=DTYPES)
def test_reference(d: int, batch: int, q: str, p: str, shared: str, dtype: torch.dtype) -> None:
    case = gaussian_case(batch, d, (q, p), shared, dtype)
    upstream = upstream_gradient(batch, dtype)
    expected, expected_gradients = true_gaussian_kl(case, upstream)
    for isa in ISAS:
        value, gradients = case.kernel(upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, case, isa)
        check_gradients(gradients, expected_gradients, case, isa)
        check_value(case.kernel(isa=isa)[0], expected, case, f"{isa}, no gradient")


LANES = (3, 16, 44)  # most lanes idle, none idle, few idle


@each_meeting(4, d=(33, 64, 96, 128, 129), batch=LANES, q=GIVEN, p=GIVEN, shared=SHARED, dtype=DTYPES)
def test_layouts(d: int, batch: int, q: str, p: str, shared: str, dtype: torch.dtype) -> None:
    """Matrices of medium size stand across lanes where the batch fills them, and along rows elsewhere."""
    case = gaussian_case(batch, d, (q, p), shared, dtype)
    upstream = upstream_gradient(batch, dtype)
    expected, expected_gradients = true_gaussian_kl(case, upstream)
    for isa in ISAS:
        value, gradients = case.kernel(upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, case, isa)
        check_gradients(gradients, expected_gradients, case, isa)


@each_dtype
@pytest.mark.parametrize("d", [17, 64])
def test_large_results_which_are_written_past_the_cache(d: int, dtype: torch.dtype) -> None:
    batch = (1 << 24) // dtype.itemsize // d**2 + 5
    for given in (("scale_tril", "scale_tril"), ("covariance_matrix", "covariance_matrix")):
        case = gaussian_case(batch, d, given, dtype=dtype)
        upstream = upstream_gradient(batch, dtype)
        expected, expected_gradients = true_gaussian_kl(case, upstream)
        value, gradients = case.kernel(upstream=upstream, wanted=ALL)
        check_value(value, expected, case)
        check_gradients(gradients, expected_gradients, case)


@each_meeting(2, d=ONE_PER_KERNEL, given=COMBINATIONS, shared=SHARED)
def test_each_subset_of_gradients(d: int, given: tuple[str, str], shared: str) -> None:
    case = gaussian_case(17, d, given, shared)
    upstream = upstream_gradient(17, torch.float64)
    expected, expected_gradients = true_gaussian_kl(case, upstream)
    for wanted in itertools.product((False, True), repeat=4):
        leaves = [t.clone().requires_grad_(w) for t, w in zip(case.inputs, wanted, strict=True)]
        value = case.call(gaussian_kl, *leaves)
        check_value(value.detach(), expected, case)
        assert value.requires_grad == any(wanted)
        if value.requires_grad:
            value.backward(upstream)
        gradients = [leaf.grad for leaf in leaves]
        assert [g is not None for g in gradients] == list(wanted)
        check_gradients(gradients, expected_gradients, case, str(wanted))


# Against an independent truth.


def mp_kl(loc_q: Any, loc_p: Any, covariance_q: Any, covariance_p: Any) -> Any:
    """The textbook formula in the precision of mpmath; columns (d, 1) and symmetric matrices (d, d)."""
    difference, precision = loc_p - loc_q, covariance_p**-1
    product = precision * covariance_q
    trace = sum(product[i, i] for i in range(product.rows))
    log_ratio = mp.log(mp.det(covariance_p)) - mp.log(mp.det(covariance_q))
    return (trace + (difference.T * precision * difference)[0] - product.rows + log_ratio) / 2


def mp_kl_of_given(given: tuple[str, str], loc_q: Any, loc_p: Any, *matrices: Any) -> Any:
    covariances = [m * m.T if side == "scale_tril" else m for m, side in zip(matrices, given, strict=True)]
    return mp_kl(loc_q, loc_p, *covariances)


def mp_inputs(case: GaussianCase, sample: int) -> list[Any]:
    """One sample's inputs as matrices of mpmath: factors lower triangular, covariance matrices symmetric."""
    rows = [t[sample] if b else t for t, b in zip(case.inputs, case.inputs.batched, strict=True)]
    matrices = [
        m.tril() + (m.tril(-1).mT if side == "covariance_matrix" else 0)
        for m, side in zip(rows[2:], case.given, strict=True)
    ]
    return [mp.matrix(t.tolist()) for t in (*rows[:2], *matrices)]


@each_meeting(2, d=(1, 2, 3, 6), given=COMBINATIONS, shared=("nothing", "both"))
def test_values_against_mpmath(d: int, shared: str, given: tuple[str, str]) -> None:
    case = gaussian_case(3, d, given, shared)
    with mp.workdps(50):
        expected = [float(mp_kl_of_given(given, *mp_inputs(case, sample))) for sample in range(3)]
    check_value(case.call(gaussian_kl), torch.tensor(expected, dtype=torch.float64), case)


@each_combination
def test_gradients_against_mpmath(given: tuple[str, str]) -> None:
    """Every partial derivative of the textbook formula, by differences in 50 digits; of a covariance matrix, along
    symmetric changes, half of which belongs to each of the two elements.
    """
    case = gaussian_case(1, 3, given)
    leaves = [t.clone().requires_grad_() for t in case.inputs]
    gradients = torch.autograd.grad(case.call(gaussian_kl, *leaves), leaves, torch.ones(1, dtype=torch.float64))
    with mp.workdps(50):
        arguments = mp_inputs(case, 0)
        for k, gradient in enumerate(gradients):
            expected = torch.zeros_like(gradient)
            symmetric = k >= 2 and given[k - 2] == "covariance_matrix"
            for row, column in itertools.product(range(3), range(3 if k >= 2 else 1)):
                if column > row:
                    continue

                def partial(x: Any, k: int = k, row: int = row, column: int = column) -> Any:
                    changed = [matrix.copy() for matrix in arguments]
                    changed[k][row, column] = x
                    if k >= 2 and given[k - 2] == "covariance_matrix":
                        changed[k][column, row] = x
                    return mp_kl_of_given(given, *changed)

                derivative = float(mpmath.diff(partial, arguments[k][row, column]))
                if k < 2:
                    expected[0, row] = derivative
                elif symmetric and row != column:
                    expected[0, row, column] = expected[0, column, row] = derivative / 2
                else:
                    expected[0, row, column] = derivative
            error = gradient_error(gradient, expected, batched=True)
            assert error <= RELATIVE[torch.float64], f"gradient of {GaussianInputs._fields[k]}: {error:.1e}"


@each_meeting(2, d=(1, 2, 5, 16, 33, 64), given=COMBINATIONS, shared=SHARED)
def test_torch_distributions(d: int, shared: str, given: tuple[str, str]) -> None:
    """Values and gradients, those of covariance matrices through torch.linalg.cholesky."""
    case = gaussian_case(17, d, given, shared)
    upstream = upstream_gradient(17, torch.float64)

    def from_distributions(*tensors: Tensor) -> Tensor:
        q, p = (
            MultivariateNormal(
                loc.expand(17, d),
                scale_tril=m.tril() if side == "scale_tril" else torch.linalg.cholesky(m),
                validate_args=False,
            )
            for loc, m, side in zip(tensors[:2], tensors[2:], given, strict=True)
        )
        return kl_divergence(q, p)

    leaves = [t.clone().requires_grad_() for t in case.inputs]
    truth = from_distributions(*leaves)
    expected = torch.autograd.grad(truth, leaves, upstream)
    value = case.call(gaussian_kl, *leaves)
    check_value(value.detach(), truth.detach(), case)
    check_gradients(torch.autograd.grad(value, leaves, upstream), expected, case)


@each_dtype
@pytest.mark.parametrize("side", GIVEN)
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_of_a_gaussian_from_itself(d: int, side: str, dtype: torch.dtype) -> None:
    case = gaussian_case(17, d, (side, side), dtype=dtype)
    loc, _, matrix, _ = case.inputs
    same = GaussianCase(GaussianInputs(loc, loc, matrix, matrix), case.given)
    zero = torch.zeros(17, dtype=torch.float64)
    for isa in ISAS:
        check_value(same.kernel(isa=isa)[0], zero, same, isa)


@pytest.mark.parametrize("d", [20, 70, 140])
@pytest.mark.parametrize("batch", [1, 9])
def test_an_infinite_distance(batch: int, d: int) -> None:
    """A mean that is infinitely far away in its last element is that, and no NaN."""
    factor, loc = torch.eye(d).expand(batch, d, d), torch.zeros(batch, d)
    far = loc.clone()
    far[0, -1] = math.inf
    value = gaussian_kl(far, loc, scale_tril_q=factor, scale_tril_p=factor)
    assert torch.equal(value, torch.tensor([math.inf] + [0.0] * (batch - 1)))


# Ill conditioned.


@each_combination
@pytest.mark.parametrize("d", [5, 48])
def test_ill_conditioned_against_mpmath(d: int, given: tuple[str, str]) -> None:
    """Standard deviations from e^-4 to e^4 in p: through its factor, the KL is as accurate as otherwise; through a
    covariance matrix, whose condition number is e^16, as accurate as through torch.linalg.cholesky.
    """
    rounded = gaussian_case(1, d, given)
    spread = torch.exp(torch.linspace(-4, 4, d, dtype=torch.float64))
    loc_q, loc_p, matrix_q, matrix_p = rounded.inputs
    scaled = spread[:, None] * matrix_p * (spread if given[1] == "covariance_matrix" else 1)
    case = GaussianCase(GaussianInputs(loc_q, loc_p, matrix_q, scaled), given)
    with mp.workdps(50):
        expected = torch.tensor([float(mp_kl_of_given(given, *mp_inputs(case, 0)))], dtype=torch.float64)
    check_value(case.call(gaussian_kl), expected, case)


@each_dtype
@each_kernel
def test_reduction_over_a_large_batch_of_a_shared_gaussian(d: int, dtype: torch.dtype) -> None:
    """The gradients of what the batch shares do not lose digits with its size."""
    case = gaussian_case(3000, d, ("scale_tril", "covariance_matrix"), "both", dtype)
    upstream = upstream_gradient(3000, dtype)
    expected = true_gaussian_kl(case, upstream)[1]
    check_gradients(case.kernel(upstream=upstream, wanted=ALL)[1], expected, case)
