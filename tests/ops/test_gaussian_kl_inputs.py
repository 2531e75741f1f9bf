"""`gaussian_kl` in PyTorch; on NaN and matrices that are no covariances; on threads; and on bad arguments."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from checks import ISAS, ONE_PER_KERNEL, same_bits
from covering import each_meeting
from fused_checks import check_in_pytorch, check_layouts
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
from torch import Tensor

from causalvae_fast.ops import backends, gaussian_kl

OTHERS = [b for b in range(17) if b != 9]


def symmetric(case: GaussianCase) -> GaussianCase:
    """Covariance matrices with both triangles."""
    loc_q, loc_p, *matrices = case.inputs
    full = (
        m.tril() + m.tril(-1).mT if side == "covariance_matrix" else m
        for m, side in zip(matrices, case.given, strict=True)
    )
    return case._replace(inputs=GaussianInputs(loc_q, loc_p, *full))


# In PyTorch.


@pytest.mark.parametrize(("given", "shared"), list(zip(COMBINATIONS, SHARED, strict=True)), ids=str)
def test_in_pytorch(given: tuple[str, str], shared: str) -> None:
    """Each op, and each sharing with one of them: what they do about PyTorch is the same code."""
    case = symmetric(gaussian_case(3, 4, given, shared))
    covariances = [2 + k for k, side in enumerate(given) if side == "covariance_matrix"]
    check_in_pytorch(case.op, case.inputs, symmetric=covariances, symbolic=shared == "nothing")


@each_combination
def test_layouts_of_large_samples(given: tuple[str, str]) -> None:
    case = gaussian_case(3, 40, given)
    check_layouts(case.op, symmetric(case).inputs)


def test_it_makes_itself_known() -> None:
    assert backends()["gaussian_kl"].keys() == {"reference", "cpu", "cuda"}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_autocast(backend: str) -> None:
    case = gaussian_case(3, 4, dtype=torch.float32)
    with torch.autocast("cpu"):
        value = case.call(gaussian_kl, *(t.bfloat16() for t in case.inputs), backend=backend)
    assert value.dtype == torch.float32


# What may not be read, and what does not spread.


@each_meeting(2, d=(1, 5, 17, 40, 64), given=COMBINATIONS, shared=SHARED, dtype=DTYPES)
def test_what_stands_above_the_triangles_is_ignored(
    d: int, given: tuple[str, str], shared: str, dtype: torch.dtype
) -> None:
    case = gaussian_case(17, d, given, shared, dtype)
    upper = torch.ones(d, d, dtype=torch.bool).triu(1)
    loc_q, loc_p, *matrices = case.inputs
    poisoned = GaussianInputs(loc_q, loc_p, *(m.masked_fill(upper, math.nan) for m in matrices))
    upstream = upstream_gradient(17, dtype)
    for isa in ISAS:
        value, gradients = case.kernel(poisoned, upstream=upstream, wanted=ALL, isa=isa)
        expected, expected_gradients = case.kernel(upstream=upstream, wanted=ALL, isa=isa)
        assert torch.equal(value, expected)
        assert same_bits(gradients, expected_gradients)
        for gradient, side in zip(gradients[2:], given, strict=True):
            assert gradient is not None
            assert torch.equal(gradient, gradient.mT if side == "covariance_matrix" else gradient.tril())


@each_meeting(sample=(0, 9, 16), given=COMBINATIONS, d=ONE_PER_KERNEL, dtype=DTYPES)
def test_nan_stays_in_its_sample(sample: int, given: tuple[str, str], d: int, dtype: torch.dtype) -> None:
    case = gaussian_case(17, d, given, dtype=dtype)
    upstream = upstream_gradient(17, dtype)
    clean, clean_gradients = case.kernel(upstream=upstream, wanted=ALL)
    others = [b for b in range(17) if b != sample]
    for k in range(4):
        changed = [t.clone() for t in case.inputs]
        changed[k][(sample, d - 1, 0)[: changed[k].dim()]] = math.nan
        value, gradients = case.kernel(GaussianInputs(*changed), upstream=upstream, wanted=ALL)
        assert value.isnan().nonzero().flatten().tolist() == [sample]
        assert torch.equal(value[others], clean[others])
        for gradient, before in zip(gradients, clean_gradients, strict=True):
            assert gradient is not None
            assert before is not None
            assert torch.equal(gradient[others], before[others])


NOT_POSITIVE_DEFINITE: dict[str, Callable[[Tensor], None]] = {
    "negative": lambda m: m[9].neg_(),
    "zero": lambda m: m[9].zero_(),
    "indefinite": lambda m: m[9, -1].fill_(100.0),
    "last_pivot_negative": lambda m: m[9, -1, -1].fill_(-1.0),
}


LANES_OR_ROWS = (5, 40, 130)  # across lanes, across lanes or along rows, along rows


@each_meeting(how=list(NOT_POSITIVE_DEFINITE), side=("q", "p"), d=LANES_OR_ROWS, dtype=DTYPES)
def test_not_positive_definite(how: str, side: str, d: int, dtype: torch.dtype) -> None:
    """NaN for that sample alone, and an error that names it where it was asked for."""
    case = gaussian_case(17, d, ("covariance_matrix", "covariance_matrix"), dtype=dtype)
    upstream = upstream_gradient(17, dtype)
    clean, clean_gradients = case.kernel(upstream=upstream, wanted=ALL)
    changed = case.inputs.map(torch.Tensor.clone)
    NOT_POSITIVE_DEFINITE[how](changed.matrix_q if side == "q" else changed.matrix_p)
    for isa in ISAS:
        value, gradients = case.kernel(changed, upstream=upstream, wanted=ALL, isa=isa)
        assert value.isnan().nonzero().flatten().tolist() == [9]
        assert gradients[2] is not None
        assert gradients[2][9].isnan().any()
    value, gradients = case.kernel(changed, upstream=upstream, wanted=ALL)
    assert torch.equal(value[OTHERS], clean[OTHERS])
    for gradient, before in zip(gradients, clean_gradients, strict=True):
        assert gradient is not None
        assert before is not None
        assert torch.equal(gradient[OTHERS], before[OTHERS])
    assert case.call(gaussian_kl, *changed, backend="reference").isnan().nonzero().flatten().tolist() == [9]
    message = f"covariance_matrix_{side} must be positive definite, but the matrix of sample 9 is not"
    with pytest.raises(ValueError, match=message):
        case.call(gaussian_kl, *changed, validate_args=True)
    case.call(gaussian_kl, validate_args=True)


# Threads.


@each_combination
@pytest.mark.parametrize("d", [24, 64])
def test_number_of_threads(d: int, given: tuple[str, str]) -> None:
    case = gaussian_case(4_100_000 // d**3, d, given, "both", torch.float32)
    upstream = upstream_gradient(len(case.inputs.loc_q), torch.float32)
    expected, expected_gradients = true_gaussian_kl(case, upstream)
    alone = case.kernel(upstream=upstream, wanted=ALL)
    for threads in (2, 4):
        torch.set_num_threads(threads)
        value, gradients = case.kernel(upstream=upstream, wanted=ALL)
        check_value(value, expected, case, f"{threads} threads")
        check_gradients(gradients, expected_gradients, case, f"{threads} threads")
        assert torch.equal(value, alone[0])
        assert same_bits([gradients[0], gradients[2]], [alone[1][0], alone[1][2]])
        again = case.kernel(upstream=upstream, wanted=ALL)
        assert same_bits(gradients, again[1]), "two runs differ"


def test_calls_from_several_threads_at_once() -> None:
    cases = [gaussian_case(40, d, given, "matrix") for given in COMBINATIONS for d in (5, 40)]
    upstream = upstream_gradient(40, torch.float64)

    def run(case: GaussianCase) -> list[Tensor | None]:
        value, gradients = case.kernel(upstream=upstream, wanted=ALL)
        return [value, *gradients]

    expected = [run(case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for found, alone in zip(pool.map(run, cases * 3), expected * 3, strict=True):
            assert same_bits(found, alone)


# Bad arguments.


def ones(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


# Changes of valid arguments with B = 4, d = 3, given by factors; and the beginning of the message, a pattern.
VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no_q": ({"scale_tril_q": None}, "give exactly one of scale_tril_q and covariance_matrix_q, got neither"),
    "two_q": ({"covariance_matrix_q": ones(4, 3, 3)}, "give exactly one of scale_tril_q and covariance_matrix_q"),
    "no_p": ({"scale_tril_p": None}, "give exactly one of scale_tril_p and covariance_matrix_p, got neither"),
    "two_p": ({"covariance_matrix_p": ones(3, 3)}, "give exactly one of scale_tril_p and covariance_matrix_p"),
    "loc_q_vector": ({"loc_q": ones(3)}, r"loc_q must have shape \(B, d\), got \(3,\)"),
    "loc_p_size": ({"loc_p": ones(4)}, r"loc_p must have shape \(4, 3\) or \(3,\), got \(4,\)"),
    "q_shared": ({"scale_tril_q": ones(3, 3)}, r"scale_tril_q must have shape \(4, 3, 3\), got \(3, 3\)"),
    "p_size": ({"scale_tril_p": ones(1, 3, 3)}, r"scale_tril_p must have shape \(4, 3, 3\) or \(3, 3\)"),
    "covariance_size": (
        {"scale_tril_p": None, "covariance_matrix_p": ones(3)},
        r"covariance_matrix_p must have shape \(4, 3, 3\) or \(3, 3\), got \(3,\)",
    ),
    "device": ({"loc_p": ones(3, device="meta")}, "loc_p is on meta, but loc_q is on cpu"),
    "backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'"),
    "diagonal": (
        {"scale_tril_q": -ones(4, 3, 3), "validate_args": True},
        r"scale_tril_q must be above 0, got -1.0 for latent 0 of sample 0",
    ),
    "shared_diagonal": (
        {"scale_tril_p": torch.zeros(3, 3).double(), "validate_args": True},
        r"scale_tril_p must be above 0, got 0.0 for latent 0$",
    ),
    "shared_covariance": (
        {"scale_tril_p": None, "covariance_matrix_p": -ones(3, 3), "validate_args": True},
        "covariance_matrix_p must be positive definite, but the matrix is not",
    ),
    "covariance_nan": (
        {"scale_tril_p": None, "covariance_matrix_p": math.nan * ones(4, 3, 3), "validate_args": True},
        "covariance_matrix_p must be positive definite, but the matrix of sample 0 is not",
    ),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "list": ({"loc_p": [0.0]}, "loc_p must be a tensor, got list"),
    "half": ({"loc_q": ones(4, 3).half()}, "loc_q must be float32 or float64, got torch.float16"),
    "dtype": ({"scale_tril_p": ones(3, 3).float()}, "scale_tril_p has dtype torch.float32, but loc_q has"),
}


def call(**changes: Any) -> Tensor:
    names = ("loc_q", "loc_p", "scale_tril_q", "scale_tril_p")
    return gaussian_kl(**(dict(zip(names, gaussian_case(4, 3).inputs, strict=True)) | changes))


@pytest.mark.parametrize("case", VALUE_ERRORS)
def test_value_errors(case: str) -> None:
    changes, message = VALUE_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_type_errors(case: str) -> None:
    changes, message = TYPE_ERRORS[case]
    with pytest.raises(TypeError, match=message):
        call(**changes)
