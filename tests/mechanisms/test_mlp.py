"""The masked MLP, against a loop over nodes and units."""

import numpy as np
import pytest
import torch
from mechanism_cases import gates_of, normal, of_nodes
from torch.testing import assert_close

from causalvae_fast.mechanisms import MLPMechanism
from causalvae_fast.mechanisms.mlp import ACTIVATIONS
from causalvae_fast.ops.ancestral_sample import mlp_ops


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_node_by_node(activation: str) -> None:
    mechanism = of_nodes(f"mlp {activation}" if activation != "tanh" else "mlp", 4)
    assert isinstance(mechanism, MLPMechanism)
    z, gates = normal(3, 4), gates_of(mechanism)
    expected = mechanism.b_out.detach().expand(3, 4).clone()
    for node in range(4):
        for unit in range(mechanism.hidden):
            pre = mechanism.b_in[node, unit].expand(3)
            for parent in range(node):
                pre = pre + mechanism.w_in[node, unit, parent] * gates[node, parent] * z[:, parent]
            expected[:, node] += (mechanism.w_out[node, unit] * ACTIVATIONS[activation](pre)[0]).detach()
    assert_close(mechanism(z, gates), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes(activation: str) -> None:
    x = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    expected = torch.func.vmap(torch.func.grad(lambda x: ACTIVATIONS[activation](x)[0]))(x)
    assert_close(ACTIVATIONS[activation](x)[1], expected)


def test_activations_are_those_of_the_op() -> None:
    assert set(ACTIVATIONS) == set(mlp_ops)


def test_the_gradient_of_the_jacobian_of_leaky_relu_is_zero() -> None:
    """The caveat of its documentation, and that the others do not have it."""
    for name, moves in (("mlp leaky_relu", False), ("mlp", True), ("mlp silu", True), ("mlp softplus", True)):
        mechanism = of_nodes(name, 4)
        assert isinstance(mechanism, MLPMechanism)
        z = normal(3, 4).requires_grad_()
        jac = mechanism.linearize(z)[1]
        found = torch.autograd.grad(jac.square().sum(), (z, mechanism.b_in), allow_unused=True)
        assert all((g is not None and bool(g.any())) == moves for g in found)


def test_initial_size() -> None:
    torch.manual_seed(0)
    mechanism = MLPMechanism(40, hidden=64, init_std=0.1)
    values = mechanism(torch.randn(1000, 40))[:, 1:]
    assert 0.03 < values.std().item() < 0.2
    assert repr(mechanism) == "MLPMechanism(d=40, hidden=64, activation='tanh')"


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        MLPMechanism(3, hidden=0)
    with pytest.raises(TypeError, match=r"hidden must be an integer, got 8\.0"):
        MLPMechanism(3, hidden=8.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"allowed must be a boolean tensor \(3, 3\), got ndarray"):
        MLPMechanism(3, allowed=np.zeros((3, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"activation must be one of tanh, .* got 'relu'"):
        MLPMechanism(3, activation="relu")
    with pytest.raises(ValueError, match=r"allowed must have shape \(3, 3\), got \(2, 2\)"):
        MLPMechanism(3, allowed=torch.zeros(2, 2))
