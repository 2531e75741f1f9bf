"""Learned gates on the edges."""

import copy
import math

import pytest
import torch
from torch import Tensor

from causalvae_fast import GumbelEdges, temporal_mask


def edges_with(probabilities: Tensor, temperature: float = 0.5) -> GumbelEdges:
    """Gates in float64 on each edge of the maximal graph, with these probabilities (d, d)."""
    edges = GumbelEdges(probabilities.shape[0], temperature=temperature).double()
    edges.logits.data.copy_(probabilities.logit())
    return edges


def draws(edges: GumbelEdges, n: int) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.stack([edges() for _ in range(n)])


def test_relaxed_gates_in_training() -> None:
    edges = GumbelEdges(6, temporal_mask(3, 2))
    first, second = draws(edges, 2)
    assert first.shape == (6, 6)
    assert ((first >= 0) & (first <= 1)).all()
    assert (first[edges.allowed] > 0).all()
    assert (first[~edges.allowed] == 0).all()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_share_of_gates_above_one_half_is_the_probability(temperature: float) -> None:
    """P(m > 1/2) = sigmoid(logit) at every temperature: the sigmoid's argument keeps its sign."""
    probability = 0.7
    gates = draws(edges_with(torch.full((6, 6), probability), temperature), 1000)[:, 1:, 0]  # 5 gates
    tolerance = 5 * math.sqrt(probability * (1 - probability) / gates.numel())
    assert abs(float((gates > 0.5).double().mean()) - probability) < tolerance


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_mean_of_cold_gates_is_the_probability(probability: float) -> None:
    edges = edges_with(torch.full((6, 6), probability), temperature=0.01)
    gates = draws(edges, 1000)[:, 1:, 0]
    tolerance = 5 * math.sqrt(probability * (1 - probability) / gates.numel())
    assert abs(float(gates.mean()) - probability) < tolerance + 0.01


def test_distribution_of_a_relaxed_gate() -> None:
    """Its distribution function is P(m < x) = sigmoid(temperature logit(x) - logit)."""
    edges = edges_with(torch.full((2, 2), 0.6, dtype=torch.float64), temperature=0.7)
    gates = draws(edges, 5000)[:, 1, 0]
    for x in (0.1, 0.3, 0.5, 0.9):
        point = torch.tensor([x, 0.6], dtype=torch.float64).logit()
        expected = float(torch.sigmoid(0.7 * point[0] - point[1]))
        tolerance = 5 * math.sqrt(expected * (1 - expected) / len(gates))
        assert abs(float((gates < x).double().mean()) - expected) < tolerance


def test_hard_gates_in_evaluation() -> None:
    edges = edges_with(torch.tensor([[0.9, 0.9, 0.9], [0.51, 0.9, 0.9], [0.49, 0.5, 0.9]])).eval()
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    assert torch.equal(edges(), expected)
    assert torch.equal(edges(), edges())


def test_probabilities_and_their_sum() -> None:
    allowed = temporal_mask(2, 2)
    edges = GumbelEdges(4, allowed, init_probability=0.3).double()
    torch.testing.assert_close(edges.probabilities(), 0.3 * allowed.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(edges.expected_edges(), torch.sigmoid(edges.logits)[allowed].sum())


def test_gradient_reaches_the_logits_of_allowed_edges_only() -> None:
    edges = GumbelEdges(4, temporal_mask(2, 2))
    edges().sum().backward()
    assert edges.logits.grad is not None
    assert ((edges.logits.grad > 0) == edges.allowed).all()


def test_gradient_of_the_penalty() -> None:
    probabilities = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edges = edges_with(probabilities)
    edges.expected_edges().backward()
    torch.testing.assert_close(edges.logits.grad, (probabilities * (1 - probabilities)).tril(-1))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_extreme_draws_stay_finite(uniform: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.full_like(like, uniform).detach())
    edges = GumbelEdges(3, temperature=0.1)
    gates = edges()
    gates.sum().backward()
    assert gates.isfinite().all()
    assert edges.logits.grad is not None
    assert edges.logits.grad.isfinite().all()


def test_temperature_may_follow_a_schedule() -> None:
    edges = edges_with(torch.full((2, 2), 0.7, dtype=torch.float64))
    (warm,) = draws(edges, 1)
    edges.temperature = 0.25
    (cold,) = draws(edges, 1)
    torch.testing.assert_close(cold[1, 0].logit(), 2 * warm[1, 0].logit())


def test_state_and_copies() -> None:
    edges = edges_with(torch.full((4, 4), 0.7))
    other = GumbelEdges(4, temporal_mask(2, 2)).double()
    other.load_state_dict(edges.state_dict())
    assert torch.equal(other.probabilities(), edges.probabilities())
    twin = copy.deepcopy(edges)
    twin.logits.data.zero_()
    assert torch.equal(other.probabilities(), edges.probabilities())


def test_one_node_has_no_edges() -> None:
    edges = GumbelEdges(1)
    assert edges.d == 1
    assert edges().tolist() == edges.eval()().tolist() == [[0.0]]
    assert edges.expected_edges().item() == 0


def test_a_number_in_the_place_of_the_mask() -> None:
    with pytest.raises(TypeError, match=r"allowed must be a boolean tensor \(4, 4\), got float"):
        GumbelEdges(4, 0.3)  # type: ignore[arg-type]


def test_repr_says_what_it_is() -> None:
    assert repr(GumbelEdges(3, temperature=0.7)) == "GumbelEdges(d=3, allowed=3 edges, temperature=0.7)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"temperature": -1.0}, "temperature must be above 0, got -1.0"),
        ({"init_probability": 0.0}, "init_probability must lie between 0 and 1, got 0.0"),
        ({"init_probability": 1.0}, "init_probability must lie between 0 and 1, got 1.0"),
        ({"init_probability": math.nan}, "init_probability must lie between 0 and 1, got nan"),
        ({"allowed": torch.ones(3, 3)}, "allowed is .* must be strictly lower triangular"),
        ({"allowed": torch.zeros(2, 2)}, r"allowed must have shape \(3, 3\), got \(2, 2\)"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GumbelEdges(3, **arguments)  # type: ignore[arg-type]
