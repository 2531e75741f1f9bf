"""SEMPrior with normalised outputs: what training mode changes, and what it must not."""

import copy

import pytest
import torch
from mechanism_cases import CASES, case, normal
from torch.distributions import Normal
from torch.testing import assert_close

from causalvae_fast import SEMPrior


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", CASES)
def test_log_prob_is_the_density_of_the_abducted_noise(name: str, training: bool) -> None:
    prior = SEMPrior(case(name), log_sigma=-0.3).double().train(training)
    before = copy.deepcopy(prior.state_dict())
    z = normal(6, prior.d)
    expected = Normal(0.0, prior.log_sigma.exp()).log_prob(prior.abduct(z)).sum(-1)
    assert_close(prior.log_prob(z), expected)
    assert_close(prior.distribution().log_prob(z), expected)
    for key, value in prior.state_dict().items():  # no running statistics moved
        assert torch.equal(value, before[key]), key
