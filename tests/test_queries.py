"""Causal queries as identities, for every mechanism: what do() cuts, what it leaves, what it must give back."""

import pytest
import torch
from mechanism_cases import CASES, OF_NODES, case, gates_of, normal, of_nodes
from torch import Tensor
from torch.testing import assert_close

from causalvae_fast import GumbelEdges, LinearMechanism, SEMPrior, temporal_mask
from causalvae_fast.graph.interventions import descendants
from causalvae_fast.mechanisms import TemporalMechanism

every = pytest.mark.parametrize("name", CASES)
of_four_nodes = pytest.mark.parametrize("name", OF_NODES)


def prior_of(name: str) -> SEMPrior:
    return SEMPrior(case(name), log_sigma=-0.3).double()


def samples(prior: SEMPrior, n: int, do: dict | None = None, edges: Tensor | None = None) -> Tensor:
    """The same noise whatever `do` is."""
    torch.manual_seed(7)
    return prior.rsample((n,), do=do, edges=edges)


@every
def test_nothing_is_done(name: str) -> None:
    prior, z = prior_of(name), normal(5, CASES[name]().d)
    assert torch.equal(samples(prior, 5, {}), samples(prior, 5))
    assert_close(prior.counterfactual(z, {}), z)
    assert torch.equal(prior.intervene(z, {}), z)


@every
def test_everything_is_done(name: str) -> None:
    prior = prior_of(name)
    z, values = normal(5, prior.d), normal(5, prior.d, seed=1)
    do = {i: values[:, i] for i in range(prior.d)}
    assert torch.equal(samples(prior, 5, do), values)
    assert torch.equal(prior.counterfactual(z, do), values)
    assert torch.equal(prior.intervene(z, do), values)


@every
def test_do_takes_a_value_for_each_sample_and_several_nodes(name: str) -> None:
    prior = prior_of(name)
    z, values = normal(4, prior.d), normal(4, seed=3)
    do = {1: values, 3: 0.5}
    for found in (samples(prior, 4, do), prior.counterfactual(z, do), prior.intervene(z, do)):
        assert torch.equal(found[:, 1], values)
        assert (found[:, 3] == 0.5).all()
    # Each as if it were alone.
    one = prior.counterfactual(z[2:3], {1: values[2].item(), 3: 0.5})
    assert_close(prior.counterfactual(z, do)[2:3], one)


@every
def test_do_changes_descendants_only(name: str) -> None:
    """Not a bit of any other node, and it does change those."""
    prior = prior_of(name)
    node, z = 2, normal(6, prior.d)
    reached = descendants(prior.mechanism.influence(), torch.arange(prior.d) == node)
    assert reached.any()
    others = ~reached
    others[node] = False
    for found, as_it_was in (
        (samples(prior, 6, {node: 1.5}), samples(prior, 6)),
        (prior.counterfactual(z, {node: 1.5}), prior.counterfactual(z, {})),
        (prior.intervene(z, {node: 1.5}), z),
    ):
        assert torch.equal(found[:, others], as_it_was[:, others])
        assert ((found != as_it_was)[:, reached]).any(0).all()


@of_four_nodes
def test_do_cuts_the_influence_of_parents_exactly(name: str) -> None:
    """0 -> 1 -> 2 and 1 -> 3 -> 4: under do(1), nothing of node 0 or of its edge reaches 1 or what follows."""
    allowed = torch.zeros(5, 5, dtype=torch.bool)
    allowed[1, 0] = allowed[2, 1] = allowed[3, 1] = allowed[4, 3] = True
    mechanism = of_nodes(name, 5, allowed)
    noise, mask = normal(6, 5), torch.arange(5) == 1
    values = normal(6, 5, seed=1)
    upstream = noise.clone()
    upstream[:, 0] = 100
    gates = torch.ones(5, 5, dtype=torch.float64)
    shut = gates.clone()
    shut[1, 0] = 0
    found = mechanism.solve(noise, gates, mask, values)
    for other in (
        mechanism.solve(upstream, gates, mask, values),
        mechanism.solve(noise, shut, mask, values),
    ):
        assert torch.equal(found[:, 1:], other[:, 1:])
    assert not torch.equal(mechanism.solve(noise, gates)[:, 1:], mechanism.solve(upstream, gates)[:, 1:])


@of_four_nodes
def test_do_is_the_model_without_the_edges_into_the_node(name: str) -> None:
    """Cut all edges into node 2, and give it the noise that makes its constant equation yield the value."""
    mechanism = of_nodes(name, 4)
    noise, values, mask = normal(6, 4), normal(6, 4, seed=1), torch.arange(4) == 2
    gates = gates_of(mechanism)
    cut = gates.clone()
    cut[2] = 0
    of_the_cut = noise.clone()
    of_the_cut[:, 2] = values[:, 2] - mechanism(torch.zeros(1, 4).double(), cut)[:, 2]
    expected = mechanism.solve(of_the_cut, cut)
    assert_close(mechanism.solve(noise, gates, mask, values), expected)


@every
def test_counterfactual_of_what_is_the_case(name: str) -> None:
    prior = prior_of(name)
    z = normal(5, prior.d)
    assert_close(prior.counterfactual(z, {1: z[:, 1], 2: z[:, 2]}), z)


def test_intervene_draws_descendants_from_the_model() -> None:
    """Given z_0, under do(z_1 = 2): z_2 ~ N(a z_0 + 2 b, sigma^2), with z_0 as observed."""
    prior = SEMPrior(LinearMechanism(3), log_sigma=-1.0).double()
    prior.mechanism.weight.data[2] = torch.tensor([1.0, -0.5, 0.0])
    z = torch.tensor([[3.0, 0.0, 50.0]], dtype=torch.float64).expand(20_000, -1)
    found = prior.intervene(z, {1: 2.0}).detach()
    assert (found[:, 0] == 3).all()
    sigma = torch.exp(torch.tensor(-1.0)).item()
    assert abs(found[:, 2].mean().item() - 2.0) < 5 * sigma / 20_000**0.5
    assert abs(found[:, 2].std().item() - sigma) < 5 * sigma / 40_000**0.5


def test_intervene_knows_which_gates_are_shut() -> None:
    prior = SEMPrior(LinearMechanism(3, init_std=1.0), GumbelEdges(3)).double().eval()
    prior.edges.logits.data.fill_(-5)
    prior.edges.logits.data[2, 0] = 5
    z = normal(4, 3)
    found = prior.intervene(z, {0: 1.0})
    assert torch.equal(found[:, 1], z[:, 1])
    assert not torch.equal(found[:, 2], z[:, 2])


def test_temporal_prior_from_gates_to_extrapolation() -> None:
    """The gates are those of a window; the graph is that window's."""
    window = temporal_mask(2, 2)
    mechanism = TemporalMechanism(LinearMechanism(4, window, init_std=0.5), frames=5, latents=2)
    prior = SEMPrior(mechanism, GumbelEdges(4, window)).double().eval()
    prior.edges.logits.data.fill_(5)
    assert prior.expected_edges().item() == pytest.approx(4, abs=0.1)
    assert prior.adjacency().nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    z = normal(3, 10)
    assert prior.kl(z, scale=torch.ones_like(z)).shape == (3,)
    found = prior.extrapolate(z, steps=2)
    assert found.shape == (3, 4)
    assert_close(found[:, :2], mechanism.mechanism(z[:, -4:].roll(-2, 1))[:, 2:])
    # The same by an ordinary mechanism of that window.
    plain = SEMPrior(mechanism.mechanism).double()
    assert_close(plain.extrapolate(z, steps=2, latents=2), found)
    with pytest.raises(TypeError, match=r"extrapolate needs latents, .* make the prior with TemporalMechanism"):
        plain.extrapolate(z, steps=2)


def test_errors_of_do() -> None:
    prior, z = prior_of("mlp"), normal(2, 4)
    for query in (prior.counterfactual, prior.intervene):
        with pytest.raises(ValueError, match="do names node 4, but the nodes are 0 to 3"):
            query(z, {4: 1.0})
        with pytest.raises(ValueError, match=r"do\[0\] must be finite, got nan"):
            query(z, {0: torch.tensor([1.0, torch.nan])})
        with pytest.raises(ValueError, match=r"z must have shape \(B, 4\), got \(2, 3\)"):
            query(z[:, :3], {0: 1.0})
        with pytest.raises(TypeError, match="do must be a mapping"):
            query(z, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"do\[0\] must be finite, got nan"):
        prior.rsample((2,), do={0: float("nan")})


@every
def test_log_prob_is_that_of_the_equations(name: str) -> None:
    prior = prior_of(name)
    z = normal(5, prior.d)
    expected = torch.distributions.Normal(prior.mechanism(z), prior.log_sigma.exp()).log_prob(z).sum(-1)
    assert_close(prior.log_prob(z), expected)
