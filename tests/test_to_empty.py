"""Modules that get their values from a state alone: made on the meta device, emptied, and loaded."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from causalvae_fast import (
    GumbelEdges,
    LinearMechanism,
    MLPMechanism,
    NormalizedMechanism,
    QuadraticMechanism,
    ScaleTril,
    SEMPrior,
)

MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: SEMPrior(LinearMechanism(3, init_std=1.0), GumbelEdges(3)),
    "linear without bias": lambda: SEMPrior(LinearMechanism(3, bias=False, init_std=1.0)),
    "fixed quadratic": lambda: SEMPrior(QuadraticMechanism({1: 0, 2: [0, 1]})),
    "learned quadratic": lambda: SEMPrior(QuadraticMechanism(d=3, learn=True, init_std=1.0)),
    "normalized mlp": lambda: SEMPrior(NormalizedMechanism(MLPMechanism(3)), learn_log_sigma=True),
    "head": lambda: ScaleTril(3),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_state_holds_all_values(name: str) -> None:
    original = MODULES[name]().eval()
    emptied = MODULES[name]().eval().to("meta").to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*emptied.parameters(), *emptied.buffers()):
            tensor.fill_(7)  # what memory may hold
    emptied.load_state_dict(original.state_dict())

    def results(module: nn.Module) -> list[Tensor]:
        z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        if not isinstance(module, SEMPrior):
            return [module(torch.cat([z, z.square()], dim=1))]
        local = module.local_gaussian(z)
        torch.manual_seed(0)
        samples = module.rsample((4,))
        return [module.kl(z, scale=z.exp()), module.log_prob(z), module.abduct(z), samples, local.scale_tril]

    for found, expected in zip(results(emptied), results(original), strict=True):
        assert torch.equal(found, expected)


def test_a_prior_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        prior = SEMPrior(LinearMechanism(3), log_sigma=-1.0)
    assert prior.log_sigma.is_meta
