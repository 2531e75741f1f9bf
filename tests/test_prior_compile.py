"""SEMPrior inside torch.compile(fullgraph=True): the same values and gradients as eager."""

import copy
from collections.abc import Iterator

import pytest
import torch
from mechanism_cases import CASES, case
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


# Code generation takes seconds.
@pytest.mark.parametrize(("posterior", "backend"), [("scale", "aot_eager"), ("scale_tril", "inductor")])
def test_a_whole_loss(prior: SEMPrior, posterior: str, backend: str) -> None:
    loc = torch.randn(8, 6, requires_grad=True)
    scale = torch.rand(8, 6) + 0.5
    factor = (torch.diag_embed(scale) if posterior == "scale_tril" else scale).requires_grad_()
    edges = prior.sample_edges()

    def loss(loc: Tensor, factor: Tensor, edges: Tensor | None) -> Tensor:
        kl = prior.kl(loc, **{posterior: factor}, edges=edges).mean()
        return kl + prior.expected_edges() - prior.log_prob(loc, edges=edges).mean()

    wanted = [loc, factor, *prior.parameters()]
    compiled = torch.compile(loss, fullgraph=True, backend=backend)(loc, factor, edges)
    eager = loss(loc, factor, edges)
    torch.testing.assert_close(compiled, eager)
    eager_gradients = torch.autograd.grad(eager, wanted, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled, wanted), eager_gradients)


def test_sampling_under_an_intervention(prior: SEMPrior) -> None:
    z = torch.compile(lambda: prior.rsample((5,), do={2: 1.5}), fullgraph=True)()
    assert z.shape == (5, 6)
    assert bool((z[:, 2] == 1.5).all())


COMPILED = [name for name in CASES if not name.startswith(("mlp ", "fixed", "normalized quad"))]
WAYS = {
    "posterior_mean": {},
    "posterior_sample": {"pivot": "posterior_sample"},
    "ancestral": {"pivot": "ancestral"},
    "monte_carlo": {"estimator": "monte_carlo"},
}


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, "posterior_mean") for name in COMPILED] + [("mlp", way) for way in WAYS if way != "posterior_mean"],
)
def test_every_mechanism_and_way(name: str, way: str) -> None:
    """In training: normalised outputs take the statistics of the batch, and the running ones follow."""
    mechanism = case(name).float().train()
    prior = SEMPrior(mechanism, GumbelEdges(len(mechanism.allowed)), learn_log_sigma=True, **WAYS[way])
    loc, scale = torch.randn(8, prior.d, requires_grad=True), torch.rand(8, prior.d) + 0.5
    edges = torch.rand(mechanism.allowed.shape, requires_grad=True)  # with a gradient they are not checked

    def run(prior: SEMPrior, backend: str | None) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
        def loss(loc: Tensor, scale: Tensor, edges: Tensor) -> Tensor:
            return prior.kl(loc, scale=scale, edges=edges, reduction="mean")

        function = loss if backend is None else torch.compile(loss, fullgraph=True, backend=backend)
        torch.manual_seed(1)
        value = function(loc, scale, edges)
        wanted = [loc, edges, *prior.mechanism.parameters(), prior.log_sigma]
        return value, torch.autograd.grad(value, wanted, allow_unused=True), dict(prior.state_dict())

    twin = copy.deepcopy(prior)
    torch.testing.assert_close(run(twin, "aot_eager"), run(prior, None))


@pytest.mark.parametrize("name", ["mlp", "temporal mlp", "callable"])
def test_where_a_default_device_is_set(name: str) -> None:
    mechanism = case(name).float()
    prior = SEMPrior(mechanism, GumbelEdges(len(mechanism.allowed)))
    loc, scale, edges = torch.randn(4, prior.d), torch.rand(4, prior.d) + 0.5, prior.sample_edges()
    torch.set_default_device("cpu")
    try:
        loss = lambda: prior.kl(loc, scale=scale, edges=edges) - prior.log_prob(loc, edges=edges)  # noqa: E731
        torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(), loss())
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("name", ["mlp", "temporal normalized", "callable"])
def test_queries(name: str) -> None:
    prior = SEMPrior(case(name).float())
    z = torch.randn(3, prior.d)

    def query(z: Tensor) -> Tensor:
        return prior.counterfactual(z, {1: 0.5}) + prior.log_prob(z).unsqueeze(-1)

    compiled = torch.compile(query, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), query(z))
