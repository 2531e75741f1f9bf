"""The structural equation model as a prior, against torch.distributions and Theorem 2."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from causalvae_fast import GumbelEdges, LinearMechanism, SEMPrior, temporal_mask


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_prior(d: int, edges: GumbelEdges | None = None, allowed: Tensor | None = None) -> SEMPrior:
    """A linear SEM with random coefficients, bias and noise, well conditioned, in float64."""
    torch.manual_seed(d)
    prior = SEMPrior(LinearMechanism(d, allowed, init_std=d**-0.5), edges, learn_log_sigma=True).double()
    prior.mechanism.bias.data.normal_()
    prior.log_sigma.data.uniform_(-0.5, 0.5)
    return prior


def gated_prior(d: int) -> SEMPrior:
    """The same with learned edges, in evaluation: about half of the gates are 1, the others 0."""
    prior = linear_prior(d, GumbelEdges(d)).eval()
    assert prior.edges is not None
    prior.edges.logits.data.copy_(normal(d, d, seed=3))
    return prior


def chain_prior() -> SEMPrior:
    """0 -> 1 -> 2 and nothing into or out of 3, in float64."""
    allowed = torch.zeros(4, 4, dtype=torch.bool)
    allowed[1, 0] = allowed[2, 1] = True
    return linear_prior(4, allowed=allowed)


def theorem_2(prior: SEMPrior, cut: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) by the product A_d ... A_1 of the paper.

    A_i is the identity with row i's parents filled in. The nodes in `cut` have no parents.
    """
    d = prior.d
    jac = prior.mechanism.coefficients(prior.sample_edges()).detach()
    product = torch.eye(d, dtype=torch.float64)
    for i in range(d):
        a_i = torch.eye(d, dtype=torch.float64)
        if i not in cut:
            a_i[i, :i] = jac[i, :i]
        product = a_i @ product
    variance = torch.exp(2 * prior.log_sigma.detach())
    return product @ prior.mechanism.bias.detach(), product @ variance.diag() @ product.mT


def posterior(kind: str, batch: int, d: int) -> tuple[Distribution, dict[str, Tensor]]:
    """A posterior as a distribution and as the arguments of `kl`."""
    loc, scale = normal(batch, d, seed=1), normal(batch, d, seed=2).abs() + 0.1
    if kind == "normal":
        return Normal(loc, scale), {"loc": loc, "scale": scale}
    if kind == "independent":
        return Independent(Normal(loc, scale), 1), {"loc": loc, "scale": scale}
    scale_tril = normal(batch, d, d, seed=4).tril(-1) + scale.diag_embed()
    return MultivariateNormal(loc, scale_tril=scale_tril), {"loc": loc, "scale_tril": scale_tril}


KINDS = ["normal", "independent", "multivariate"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 5, 12])
@pytest.mark.parametrize("make", [linear_prior, gated_prior])
def test_kl_against_torch_distributions(make: Callable[[int], SEMPrior], d: int, kind: str) -> None:
    prior = make(d)
    q, arguments = posterior(kind, 7, d)
    mean, covariance = theorem_2(prior)
    q_full = MultivariateNormal(q.mean, scale_tril=arguments.get("scale_tril", q.stddev.diag_embed()))
    expected = kl_divergence(q_full, MultivariateNormal(mean, covariance))
    assert_close(prior.kl(q), expected)
    assert_close(prior.kl(**arguments), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_kl_without_edges_is_that_of_an_ordinary_vae(kind: str) -> None:
    q, _ = posterior(kind, 7, 5)
    zeros, eye = torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    if kind == "normal":
        expected = kl_divergence(q, Normal(zeros, 1.0)).sum(-1)
    elif kind == "independent":
        expected = kl_divergence(q, Independent(Normal(zeros, torch.ones_like(zeros)), 1))
    else:
        expected = kl_divergence(q, MultivariateNormal(zeros, eye))
    assert_close(SEMPrior(LinearMechanism(5)).double().kl(q), expected)
    assert_close(SEMPrior(LinearMechanism(5), GumbelEdges(5)).double().kl(q), expected)
    # Coefficients behind closed gates count as no edges.
    closed = SEMPrior(LinearMechanism(5, init_std=1.0), GumbelEdges(5, init_probability=0.1)).double().eval()
    assert_close(closed.kl(q), expected)


def test_kl_reductions() -> None:
    prior = linear_prior(3)
    q, _ = posterior("normal", 5, 3)
    assert_close(prior.kl(q, reduction="mean"), prior.kl(q).mean())
    assert_close(prior.kl(q, reduction="sum"), prior.kl(q).sum())


def test_kl_takes_shared_gates() -> None:
    prior = linear_prior(4, GumbelEdges(4))
    q, _ = posterior("normal", 5, 4)
    gates = prior.sample_edges()
    assert gates is not None
    assert torch.equal(prior.kl(q, edges=gates), prior.kl(q, edges=gates))
    assert not torch.equal(prior.kl(q), prior.kl(q))  # drawn anew in training
    torch.manual_seed(1)
    drawn = prior.kl(q)
    torch.manual_seed(1)
    assert torch.equal(prior.kl(q, edges=prior.sample_edges()), drawn)


def test_gradients_of_kl_reach_everything_that_is_learned() -> None:
    prior = linear_prior(4, GumbelEdges(4, temporal_mask(2, 2)))
    loc, scale = normal(5, 4).requires_grad_(), (normal(5, 4).abs() + 0.1).requires_grad_()
    prior.kl(loc, scale=scale).sum().backward()
    for tensor in (loc, scale, *prior.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.count_nonzero() > 0
    assert torch.equal(prior.edges.logits.grad != 0, temporal_mask(2, 2))


def test_local_gaussian_is_theorem_2() -> None:
    for prior in (linear_prior(1), linear_prior(6), gated_prior(6)):
        mean, covariance = theorem_2(prior)
        local = prior.local_gaussian(normal(3, prior.d))
        assert local.batch_shape == (3,)
        assert_close(local.loc, mean.expand(3, -1))
        assert_close(local.covariance_matrix, covariance.expand(3, -1, -1))


def test_log_prob_of_a_linear_sem_is_that_of_its_gaussian() -> None:
    for prior in (linear_prior(1), linear_prior(6), gated_prior(6)):
        z = normal(9, prior.d)
        assert_close(prior.log_prob(z), MultivariateNormal(*theorem_2(prior)).log_prob(z))
        assert_close(prior.log_prob(z), prior.local_gaussian(normal(1, prior.d, seed=8)).log_prob(z))


def assert_moments(samples: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Mean and covariance of (n, d) samples of a Gaussian, within five standard errors."""
    n, variance = len(samples), covariance.diagonal()
    assert ((samples.mean(0) - mean).abs() <= 5 * (variance / n).sqrt() + 1e-12).all()
    error = ((variance[:, None] * variance + covariance**2) / n).sqrt()
    assert ((samples.T.cov() - covariance).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("make", [linear_prior, gated_prior])
def test_moments_of_samples(make: Callable[[int], SEMPrior]) -> None:
    prior = make(4)
    assert_moments(prior.rsample((50_000,)).detach(), *theorem_2(prior))


def test_moments_under_an_intervention() -> None:
    """Node 1 is a constant: no parent reaches it, its children get the value, its ancestors are as before."""
    prior = linear_prior(4)
    samples = prior.rsample((50_000,), do={1: 2.5}).detach()
    assert (samples[:, 1] == 2.5).all()
    observed, intervened = theorem_2(prior), linear_prior(4)
    intervened.mechanism.bias.data[1] = 2.5
    intervened.log_sigma.data[1] = -torch.inf
    mean, covariance = theorem_2(intervened, cut=(1,))
    assert_moments(samples, mean, covariance)
    assert_close(mean[0], observed[0][0])
    assert (mean[2:] - observed[0][2:]).abs().min() > 0.05  # the test can tell the two apart


def test_intervention_with_a_value_for_each_sample() -> None:
    prior, values = linear_prior(3), normal(2, 5)
    samples = prior.rsample((2, 5), do={1: values, 2: -1})
    assert samples.shape == (2, 5, 3)
    assert torch.equal(samples[..., 1], values)
    assert (samples[..., 2] == -1).all()


def test_no_gradient_through_a_replaced_equation() -> None:
    prior = linear_prior(3)
    value = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    prior.rsample((10,), do={1: value})[:, 2].sum().backward()
    weight = prior.mechanism.weight
    assert weight.grad[1, 0] == prior.mechanism.bias.grad[1] == prior.log_sigma.grad[1] == 0
    assert weight.grad[2, 1] != 0
    assert_close(value.grad, 10 * weight[2, 1].detach())


def test_sample_shapes() -> None:
    prior = linear_prior(3)
    assert prior.rsample().shape == (3,)
    assert prior.rsample((4,)).shape == (4, 3)
    assert prior.rsample((0,)).shape == (0, 3)
    assert prior.rsample(torch.Size([2, 4]), do={0: 1.0}).shape == (2, 4, 3)
    assert prior.rsample((), do={0: torch.tensor(2.0)})[0] == 2


@pytest.mark.parametrize("make", [linear_prior, gated_prior])
def test_abducted_noise_explains_the_latents(make: Callable[[int], SEMPrior]) -> None:
    prior, z = make(6), normal(9, 6)
    gates = prior.sample_edges()
    assert_close(prior.mechanism.solve(prior.abduct(z, edges=gates), gates), z)
    assert_close(prior.counterfactual(z, {}), z)


def test_counterfactual_of_what_is_the_case() -> None:
    prior, z = linear_prior(6), normal(9, 6)
    assert_close(prior.counterfactual(z, {2: z[:, 2], 4: z[:, 4]}), z)


def test_counterfactual_keeps_the_noise_and_changes_descendants_only() -> None:
    prior, z = chain_prior(), normal(9, 4)
    jac = prior.mechanism.coefficients().detach()
    changed = prior.counterfactual(z, {1: z[:, 1] + 2}).detach()
    expected = z.clone()
    expected[:, 1] += 2
    expected[:, 2] += 2 * jac[2, 1]
    assert_close(changed, expected)
    # Not a bit of what is no descendant depends on the intervention.
    as_it_was = prior.counterfactual(z, {})
    assert torch.equal(changed[:, [0, 3]], as_it_was[:, [0, 3]])
    assert ((changed - z)[:, 2].abs() > 0.01).all()


def test_counterfactual_draws_its_gates_once() -> None:
    """Abduction and prediction under different gates would not give z back."""
    prior, z = linear_prior(6, GumbelEdges(6)), normal(9, 6)
    assert prior.training
    assert_close(prior.counterfactual(z, {0: z[:, 0]}), z)


def test_adjacency_is_transposed_to_parent_child() -> None:
    prior = SEMPrior(LinearMechanism(3), GumbelEdges(3))
    prior.edges.logits.data.fill_(-5)
    prior.edges.logits.data[2, 0] = 5  # the edge 0 -> 2
    assert prior.adjacency().nonzero().tolist() == [[0, 2]]
    assert prior.edge_probabilities()[2, 0] > 0.99
    graph = prior.to_networkx(names=["a", "b", "c"])
    assert list(graph.nodes) == ["a", "b", "c"]
    assert list(graph.edges) == [("a", "c")]


def test_threshold() -> None:
    prior = SEMPrior(LinearMechanism(2), GumbelEdges(2, init_probability=0.6))
    assert prior.adjacency().sum() == prior.adjacency(threshold=0.5).sum() == 1
    assert prior.adjacency(threshold=0.7).sum() == 0
    assert prior.to_networkx(threshold=0.7).number_of_edges() == 0
    undecided = SEMPrior(LinearMechanism(2), GumbelEdges(2, init_probability=0.5))
    assert undecided.adjacency().sum() == undecided.eval().sample_edges().sum() == 0  # shut, as its gate is


def test_edges_without_gates_are_those_of_the_mechanism() -> None:
    mask = temporal_mask(3, 2)
    prior = SEMPrior(LinearMechanism(6, mask))
    assert prior.sample_edges() is None
    assert torch.equal(prior.edge_probabilities(), mask.float())
    assert torch.equal(prior.adjacency(), mask.mT)
    assert prior.expected_edges() == mask.sum()


def test_an_edge_needs_mechanism_and_gate() -> None:
    prior = SEMPrior(LinearMechanism(6, temporal_mask(3, 2, lag=1)), GumbelEdges(6, temporal_mask(2, 3)))
    both = temporal_mask(3, 2, lag=1) & temporal_mask(2, 3)
    assert torch.equal(prior.edge_probabilities() > 0, both)
    assert_close(prior.expected_edges().item(), 0.5 * int(both.sum()))
    prior.expected_edges().backward()
    assert torch.equal(prior.edges.logits.grad > 0, both)


def test_attributes_of_the_graph() -> None:
    prior = gated_prior(4)
    graph = prior.to_networkx()
    assert 0 < graph.number_of_edges() < 6
    for parent, child, attributes in graph.edges(data=True):
        assert attributes == {
            "probability": prior.edge_probabilities()[child, parent].item(),
            "coefficient": prior.mechanism.weight[child, parent].item(),
        }


def test_gates_are_hard_in_evaluation() -> None:
    prior = linear_prior(5, GumbelEdges(5, init_probability=0.6))
    gates = prior.sample_edges()
    assert ((gates > 0) & (gates < 1)).any()
    prior.eval()
    assert torch.equal(prior.sample_edges(), torch.ones(5, 5).tril(-1).double())
    q, _ = posterior("normal", 3, 5)
    assert torch.equal(prior.kl(q), prior.kl(q))


def test_log_sigma_fixed_or_learned() -> None:
    fixed = SEMPrior(LinearMechanism(3), log_sigma=-1.0)
    assert [name for name, _ in fixed.named_parameters()] == ["mechanism.weight", "mechanism.bias"]
    assert fixed.log_sigma.tolist() == [-1, -1, -1]
    given = torch.tensor([0.5, 0.0, -0.5])
    learned = SEMPrior(LinearMechanism(3), log_sigma=given, learn_log_sigma=True)
    assert isinstance(learned.log_sigma, torch.nn.Parameter)
    given.zero_()  # the prior keeps a copy
    assert learned.log_sigma.tolist() == [0.5, 0.0, -0.5]


def test_state_and_copies() -> None:
    prior, z = gated_prior(4), normal(3, 4)
    other = SEMPrior(LinearMechanism(4), GumbelEdges(4), learn_log_sigma=True).double().eval()
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.log_prob(z), prior.log_prob(z))
    twin = copy.deepcopy(prior)
    assert torch.equal(twin.log_prob(z), prior.log_prob(z))
    for parameter in twin.parameters():
        parameter.data.add_(1)
    assert torch.equal(other.log_prob(z), prior.log_prob(z))
    assert not torch.equal(twin.log_prob(z), prior.log_prob(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_prior(dtype: torch.dtype) -> None:
    prior = SEMPrior(LinearMechanism(3), GumbelEdges(3)).to(dtype)
    z = torch.zeros(2, 3, dtype=dtype)
    results = [prior.kl(z, scale=torch.ones_like(z)), prior.log_prob(z), prior.rsample((2,), do={0: 1.0})]
    results += [prior.counterfactual(z, {0: 1.0}), prior.local_gaussian(z).loc, prior.expected_edges()]
    assert [result.dtype for result in results] == [dtype] * len(results)


@pytest.mark.parametrize("d", [1, 3])
def test_empty_batch(d: int) -> None:
    prior, z = linear_prior(d), normal(0, d)
    assert prior.kl(z, scale=z).shape == (0,)
    assert prior.kl(z, scale_tril=normal(0, d, d)).shape == (0,)
    assert prior.log_prob(z).shape == (0,)
    assert prior.counterfactual(z, {0: 1.0}).shape == (0, d)


def test_local_gaussian_of_no_pivots() -> None:
    local = linear_prior(3).local_gaussian(normal(0, 3))
    assert local.batch_shape == (0,)
    assert local.scale_tril.shape == (0, 3, 3)


def test_one_latent_by_hand() -> None:
    """z ~ N(1, 4): log p(3) = -log 2 - 1/2 log 2 pi - 1/2, and KL(N(1, 4) || it) = 0."""
    prior = SEMPrior(LinearMechanism(1), log_sigma=math.log(2)).double()
    prior.mechanism.bias.data.fill_(1)
    prior.log_sigma.fill_(math.log(2))
    z = torch.tensor([[3.0]], dtype=torch.float64)
    expected = torch.tensor([-math.log(2) - 0.5 * math.log(2 * math.pi) - 0.5], dtype=torch.float64)
    assert_close(prior.log_prob(z), expected)
    one, two = torch.ones(1, 1).double(), torch.full((1, 1), 2.0).double()
    assert_close(prior.kl(one, scale=two), torch.zeros(1, dtype=torch.float64))


def test_autocast_computes_in_float32() -> None:
    """An encoder under autocast gives bfloat16; what the prior makes of it has the precision of float32."""
    torch.manual_seed(0)
    prior = SEMPrior(LinearMechanism(6, init_std=0.5), learn_log_sigma=True)
    low = torch.randn(9, 6).bfloat16()
    z, scale = low.float(), low.exp()

    def results(z: Tensor, scale: Tensor) -> list[Tensor]:
        torch.manual_seed(1)
        return [
            prior.kl(z, scale=scale),
            prior.kl(Normal(z, scale)),
            prior.log_prob(z),
            prior.abduct(z),
            prior.counterfactual(z, {1: 0.5}),
            prior.rsample((4,), do={0: 1.0}),
            prior.local_gaussian(z).scale_tril,
        ]

    expected = results(z, scale.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z @ z.mT).dtype == torch.bfloat16  # which loses most digits
        found = results(low, scale)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
