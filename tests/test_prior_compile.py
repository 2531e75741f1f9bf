"""SEMPrior inside torch.compile(fullgraph=True): the same values and gradients as eager."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from causalvae_fast import GumbelEdges, LinearMechanism, SEMPrior


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def prior() -> SEMPrior:
    return SEMPrior(LinearMechanism(6, init_std=0.3), GumbelEdges(6), learn_log_sigma=True)


@pytest.mark.parametrize("posterior", ["scale", "scale_tril"])
def test_a_whole_loss(prior: SEMPrior, posterior: str) -> None:
    loc = torch.randn(8, 6, requires_grad=True)
    scale = torch.rand(8, 6) + 0.5
    factor = (torch.diag_embed(scale) if posterior == "scale_tril" else scale).requires_grad_()
    edges = prior.sample_edges()

    def loss(loc: Tensor, factor: Tensor, edges: Tensor | None) -> Tensor:
        kl = prior.kl(loc, **{posterior: factor}, edges=edges).mean()
        return kl + prior.expected_edges() - prior.log_prob(loc, edges=edges).mean()

    wanted = [loc, factor, *prior.parameters()]
    eager, compiled = loss(loc, factor, edges), torch.compile(loss, fullgraph=True)(loc, factor, edges)
    torch.testing.assert_close(compiled, eager)
    eager_gradients = torch.autograd.grad(eager, wanted, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled, wanted), eager_gradients)


def test_sampling_under_an_intervention(prior: SEMPrior) -> None:
    z = torch.compile(lambda: prior.rsample((5,), do={2: 1.5}), fullgraph=True)()
    assert z.shape == (5, 6)
    assert bool((z[:, 2] == 1.5).all())
