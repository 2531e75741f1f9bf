"""`sem_kl` in float32 and float64 against 50 digits, on ill-conditioned SEMs: within the bound of its formula."""

import pytest
import torch
from checks import ISAS, each_dtype, each_posterior
from inputs import SEMInputs
from sem_kl_bound import bound, error, gradient_errors, ill_conditioned, textbook, truth

from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu

SEEDS = {4: 20, 16: 10, 64: 3}  # of each d


@each_dtype
@each_posterior
@pytest.mark.parametrize("d", SEEDS, ids=lambda d: f"d{d}")
def test_within_the_bound_of_the_formula(d: int, posterior: str, dtype: torch.dtype) -> None:
    """The gradients element by element."""
    for seed in range(SEEDS[d]):
        rounded = ill_conditioned(d, posterior, seed)
        expected, limit = truth(rounded), bound(rounded, dtype)
        inputs = SEMInputs(*(t.to(dtype) for t in rounded))
        upstream = torch.ones(1, dtype=dtype)
        for isa in ISAS:
            wanted = (False, False, False, True, True)
            value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=wanted, isa=isa)
            assert error(value[0], expected.value) <= limit.value, f"value, {isa}, seed {seed}"
            loc, factor = gradients[3], gradients[4]
            assert loc is not None
            assert factor is not None
            assert (gradient_errors(loc[0], expected.loc_gradient) <= limit.loc_gradient).all(), f"loc, {isa}"
            errors = gradient_errors(factor[0], expected.factor_gradient)
            assert (errors <= limit.factor_gradient).all(), f"{inputs.factor_name}, {isa}"


@each_posterior
def test_the_truth_against_the_textbook_formula(posterior: str) -> None:
    """Which inverts two matrices, and so is given four times the digits."""
    for d in (4, 16):
        inputs = ill_conditioned(d, posterior, 0)
        expected = truth(inputs).value
        assert abs(textbook(inputs, 200) - expected) < 1e-40 * abs(expected)


@each_posterior
def test_the_bound_is_not_vacuous(posterior: str) -> None:
    """It allows an error that is small against the value, however ill conditioned."""
    for d in SEEDS:
        inputs = ill_conditioned(d, posterior, 0)
        assert bound(inputs, torch.float32).value < 1e-3 * float(truth(inputs).value)
