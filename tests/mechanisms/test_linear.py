"""The linear mechanism."""

import copy

import pytest
import torch
from torch import Tensor

from causalvae_fast import LinearMechanism, temporal_mask


def mechanism(d: int, allowed: Tensor | None = None, bias: bool = True) -> LinearMechanism:
    """Random coefficients of a size for which the SEM is well conditioned, in float64."""
    torch.manual_seed(d)
    linear = LinearMechanism(d, allowed, bias=bias, init_std=d**-0.5).double()
    if bias:
        linear.bias.data.normal_()
    return linear


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gates(d: int) -> Tensor:
    return torch.rand(d, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("edges", [None, gates(4)], ids=["all", "gated"])
def test_value_node_by_node(edges: Tensor | None) -> None:
    linear, z = mechanism(4), normal(3, 4)
    expected = linear.bias.expand(3, 4).clone()
    for child in range(4):
        for parent in range(child):
            gate = 1.0 if edges is None else edges[child, parent]
            expected[:, child] += gate * linear.weight[child, parent] * z[:, parent]
    torch.testing.assert_close(linear(z, edges), expected)


def test_disallowed_coefficients_have_no_effect_and_no_gradient() -> None:
    allowed = temporal_mask(2, 2)
    linear = mechanism(4, allowed)
    assert linear.weight.count_nonzero() == 16
    assert torch.equal(linear.coefficients() != 0, allowed)
    linear(normal(3, 4)).square().sum().backward()
    assert linear.weight.grad is not None
    assert torch.equal(linear.weight.grad != 0, allowed)


def test_linearize_is_the_jacobian() -> None:
    linear, z = mechanism(4), normal(3, 4)
    value, jac = linear.linearize(z, gates(4))
    assert jac.shape == (3, 4, 4)
    torch.testing.assert_close(value, linear(z, gates(4)))
    for sample in range(3):
        expected = torch.autograd.functional.jacobian(lambda x: linear(x[None], gates(4))[0], z[sample])
        torch.testing.assert_close(jac[sample], expected)


def test_expand_is_the_mechanism_itself() -> None:
    linear, z = mechanism(4), normal(3, 4)
    jac, offset = linear.expand(normal(1, 4, seed=9), gates(4))
    assert jac.shape == (4, 4)
    assert offset.shape == (4,)
    torch.testing.assert_close(z @ jac.mT + offset, linear(z, gates(4)))
    # The general expansion of the base class says the same.
    general = super(LinearMechanism, linear).expand(z, gates(4))
    torch.testing.assert_close(general[0], jac.expand(3, 4, 4))
    torch.testing.assert_close(general[1], offset.expand(3, 4))


@pytest.mark.parametrize("edges", [None, gates(6)], ids=["all", "gated"])
def test_solve_satisfies_the_equations(edges: Tensor | None) -> None:
    linear, noise = mechanism(6), normal(10, 6)
    z = linear.solve(noise, edges)
    torch.testing.assert_close(z, linear(z, edges) + noise)


def test_solve_node_by_node_under_an_intervention() -> None:
    linear, noise, values = mechanism(5), normal(10, 5), normal(10, 5, seed=1)
    mask = torch.tensor([False, True, False, True, False])
    z = torch.zeros(10, 5, dtype=torch.float64)
    for node in range(5):
        equation = linear(z)[:, node] + noise[:, node]
        z[:, node] = torch.where(mask[node], values[:, node], equation)
    solved = linear.solve(noise, None, mask, values)
    torch.testing.assert_close(solved, z)
    assert torch.equal(solved[:, mask], values[:, mask])


def test_gradients_of_solve() -> None:
    linear, mask = mechanism(3), torch.tensor([False, True, False])
    noise, edges, values = (x.requires_grad_() for x in (normal(2, 3), gates(3), normal(2, 3, seed=1)))

    def solve(noise: Tensor, edges: Tensor, values: Tensor, *parameters: Tensor) -> Tensor:
        return linear.solve(noise, edges, mask, values)  # gradcheck changes the parameters in place

    assert torch.autograd.gradcheck(solve, (noise, edges, values, linear.weight, linear.bias))


def test_initial_coefficients() -> None:
    assert LinearMechanism(5).coefficients().count_nonzero() == 0
    torch.manual_seed(0)
    weights = LinearMechanism(100, init_std=0.1).weight
    assert 0.098 < weights.std().item() < 0.102


def test_without_bias() -> None:
    linear = mechanism(3, bias=False)
    assert [name for name, _ in linear.named_parameters()] == ["weight"]
    assert "bias" not in linear.state_dict()
    assert linear.bias is None
    assert linear.offset().tolist() == [0, 0, 0]
    assert linear.offset().dtype == torch.float64
    assert torch.equal(linear(torch.zeros(1, 3).double()), torch.zeros(1, 3).double())


def test_state_and_copies() -> None:
    linear, other, z = mechanism(4), LinearMechanism(4, temporal_mask(2, 2)).double(), normal(3, 4)
    other.load_state_dict(linear.state_dict())
    assert torch.equal(other(z), linear(z))
    twin = copy.deepcopy(linear)
    twin.weight.data.zero_()
    assert torch.equal(other(z), linear(z))


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (4, 1), (0, 1)])
def test_empty_batches_and_one_node(n: int, d: int) -> None:
    linear, z = mechanism(d), normal(n, d)
    assert linear(z).shape == linear.solve(z).shape == (n, d)
    assert linear.linearize(z)[1].shape == (n, d, d)
    if d == 1:
        torch.testing.assert_close(linear.solve(z), z + linear.bias)


def test_repr_says_what_it_is() -> None:
    assert repr(LinearMechanism(3)) == "LinearMechanism(d=3)"


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"allowed must have shape \(3, 3\), got \(2, 2\)"):
        LinearMechanism(3, torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="strictly lower triangular"):
        LinearMechanism(2, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="d must be at least 1"):
        LinearMechanism(0)
