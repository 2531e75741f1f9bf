"""The gates that a user gives to the methods of SEMPrior: which are taken, and which are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from causalvae_fast import GumbelEdges, LinearMechanism, MLPMechanism, SEMPrior, TemporalMechanism, temporal_mask

Z = torch.zeros(2, 3)
METHODS: dict[str, Callable[[SEMPrior, Tensor], object]] = {
    "kl": lambda prior, edges: prior.kl(Z, scale=Z + 1, edges=edges),
    "log_prob": lambda prior, edges: prior.log_prob(Z, edges=edges),
    "distribution": lambda prior, edges: prior.distribution(edges=edges),
    "rsample": lambda prior, edges: prior.rsample((2,), edges=edges),
    "abduct": lambda prior, edges: prior.abduct(Z, edges=edges),
    "counterfactual": lambda prior, edges: prior.counterfactual(Z, {0: 1.0}, edges=edges),
    "intervene": lambda prior, edges: prior.intervene(Z, {0: 1.0}, edges=edges),
    "extrapolate": lambda prior, edges: prior.extrapolate(Z, latents=1, edges=edges),
    "local_gaussian": lambda prior, edges: prior.local_gaussian(Z, edges=edges),
}
every_method = pytest.mark.parametrize("call", METHODS.values(), ids=METHODS)


@pytest.fixture
def prior() -> SEMPrior:
    prior = SEMPrior(MLPMechanism(3), GumbelEdges(3))
    assert prior.edges is not None
    prior.edges.logits.data.fill_(5)
    return prior


@every_method
def test_a_transposed_graph_is_refused(prior: SEMPrior, call: Callable[[SEMPrior, Tensor], object]) -> None:
    graph = prior.adjacency()
    for edges in (graph, graph.int(), graph.float()):
        with pytest.raises(ValueError, match=r"edges is \(child, parent\).*: pass adjacency\(\)\.mT"):
            call(prior, edges)


@every_method
@pytest.mark.parametrize("bad", [2.0, -0.5, float("nan")])
def test_values_that_are_no_gates_are_refused(
    prior: SEMPrior, call: Callable[[SEMPrior, Tensor], object], bad: float
) -> None:
    with pytest.raises(ValueError, match=r"edges is \(child, parent\), in \[0, 1\]; got values from "):
        call(prior, bad * torch.ones(3, 3).tril(-1))


def test_a_graph_as_the_user_has_it(prior: SEMPrior) -> None:
    """Boolean, of integers or of numbers: the same gates, in the prior's dtype."""
    z = torch.randn(4, 3)
    graph = prior.adjacency().mT
    expected = prior.kl(z, scale=z.exp(), edges=graph.float())
    for edges in (graph, graph.int(), graph.to(torch.uint8)):
        assert torch.equal(prior.kl(z, scale=z.exp(), edges=edges), expected)
    prior.double()
    assert prior.kl(z.double(), scale=z.double().exp(), edges=graph).dtype == torch.float64


def test_what_the_prior_drew_is_taken() -> None:
    """Also where learned gates are open, but the mechanism has no edge."""
    mechanism = TemporalMechanism(LinearMechanism(4, temporal_mask(2, 2)), frames=3, latents=2)
    prior = SEMPrior(mechanism, GumbelEdges(4))
    z = torch.zeros(2, 6)
    for mode in (True, False):
        prior.train(mode)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert prior.kl(z, scale=z + 1, edges=prior.sample_edges()).shape == (2,)


def test_gates_in_training_are_not_read(prior: SEMPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a training step neither pays for the check nor waits for a device."""
    gates = prior.sample_edges()
    assert gates is not None
    monkeypatch.setattr(Tensor, "aminmax", lambda self: pytest.fail("values were read"))
    prior.kl(Z, scale=Z + 1, edges=gates)
    with pytest.raises(pytest.fail.Exception, match="values were read"):
        prior.kl(Z, scale=Z + 1, edges=gates.detach())


def test_transforms_and_the_compiler_read_no_values(prior: SEMPrior) -> None:
    gates = torch.rand(5, 3, 3).tril(-1)
    found = torch.func.vmap(lambda edges: prior.log_prob(Z, edges=edges))(gates)
    torch.testing.assert_close(found[0], prior.log_prob(Z, edges=gates[0]))
    compiled = torch.compile(lambda edges: prior.log_prob(Z, edges=edges), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(gates[0]), found[0])


def test_complex_gates_and_those_of_another_device(prior: SEMPrior) -> None:
    with pytest.raises(TypeError, match=r"edges must be real, got torch\.complex64"):
        prior.log_prob(Z, edges=torch.zeros(3, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="edges is on meta, but the prior on cpu: move one of them"):
        prior.log_prob(Z, edges=torch.zeros(3, 3, device="meta"))
