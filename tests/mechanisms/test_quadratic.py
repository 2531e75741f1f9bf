"""Parabolas, fixed and learned."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from causalvae_fast.mechanisms import LinearMechanism, QuadraticMechanism


def test_the_parabola_of_the_ovals() -> None:
    """y = x^2 + n."""
    parabola = QuadraticMechanism(parents={1: 0})
    z = torch.tensor([[3.0, 7.0], [-2.0, 0.0]])
    value, jac = parabola.linearize(z)
    assert value.tolist() == [[0, 9], [0, 4]]
    assert jac.tolist() == [[[0, 0], [6, 0]], [[0, 0], [-4, 0]]]
    assert parabola.expand(z)[1].tolist() == [[0, -9], [0, -4]]
    assert parabola.solve(torch.tensor([[3.0, 0.5]])).tolist() == [[3, 9.5]]
    assert list(parabola.parameters()) == []


def test_any_parents() -> None:
    mechanism = QuadraticMechanism(parents={1: 0, 3: [0, 2]}, d=5)
    assert mechanism.allowed.nonzero().tolist() == [[1, 0], [3, 0], [3, 2]]
    assert mechanism(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])).tolist() == [[0, 1, 0, 10, 0]]
    assert QuadraticMechanism(parents={2: 0}).d == 3
    assert QuadraticMechanism(d=3, learn=True).allowed.sum() == 3
    assert QuadraticMechanism({}, d=3).allowed.sum() == 0
    assert QuadraticMechanism(parents={1: 0, 3: []}).d == 4
    assert LinearMechanism(np.int64(3)).d == 3


def test_learned_ones_start_as_no_edges_and_learn_a_parabola() -> None:
    mechanism = QuadraticMechanism(d=2, learn=True)
    z = torch.randn(200, 2)
    assert not mechanism(z).any()
    target = 1.5 * z[:, 0].square() - 2 * z[:, 0] + 0.5
    optimizer = torch.optim.Adam(mechanism.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (mechanism(z)[:, 1] - target).square().mean().backward()
        optimizer.step()
    found = torch.stack([mechanism.quadratic[1, 0], mechanism.linear[1, 0], mechanism.bias[1]])
    assert_close(found.detach(), torch.tensor([1.5, -2.0, 0.5]), rtol=1e-2, atol=1e-2)
    assert isinstance(mechanism.bias, nn.Parameter)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="parents has 1 -> 0: a parent comes before its child"):
        QuadraticMechanism(parents={0: 1}, d=2)
    with pytest.raises(ValueError, match=r"parents has 0 -> 4: .* nodes are 0 to 2"):
        QuadraticMechanism(parents={4: 0}, d=3)
    with pytest.raises(ValueError, match=r"parents has 2 -> 0: .* nodes are 0 to 2, as d is 3"):
        QuadraticMechanism({0: 2})
    for nothing in (None, {}):
        with pytest.raises(ValueError, match="give d, the number of nodes, or parents"):
            QuadraticMechanism(nothing)


def test_parents_are_needed_where_nothing_is_learned() -> None:
    """Each node would be the sum of the squares of all before it."""
    with pytest.raises(ValueError, match=r"give parents, as \{1: 0\} .*, or \{\} for none; or learn=True"):
        QuadraticMechanism(d=8)


def test_d_in_the_place_of_parents() -> None:
    with pytest.raises(TypeError, match=r"parents must be a mapping .*, got int \(for 3 nodes, give d=3\)"):
        QuadraticMechanism(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"parents must be a mapping {child: parent or parents}, got Tensor$"):
        QuadraticMechanism(torch.eye(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parents", [{1: None}, {1: "0"}, {1: [0.0]}, {2: [0, "1"]}, {"y": 0}, {"y": []}, {1.0: 0}]
)
def test_parents_that_are_no_nodes(parents: dict) -> None:
    with pytest.raises(TypeError, match=re.escape(f"as {{1: 0, 3: [0, 2]}}, got {parents!r}")):
        QuadraticMechanism(parents)


@pytest.mark.parametrize("parents", [(0, 1), torch.tensor([0, 1]), np.array([0, 1]), iter([0, 1]), {0, 1}])
def test_parents_in_any_container(parents) -> None:  # type: ignore[no-untyped-def]
    assert QuadraticMechanism({np.int64(2): parents}).allowed.tolist() == [[False] * 3] * 2 + [[True, True, False]]


@pytest.mark.parametrize("d", [2.0, "2", True, torch.zeros(2)])
def test_d_that_is_no_integer(d) -> None:  # type: ignore[no-untyped-def]
    for make in (LinearMechanism, lambda d: QuadraticMechanism({}, d), lambda d: QuadraticMechanism({1: 0}, d)):
        with pytest.raises(TypeError, match="d must be an integer, got "):
            make(d)
