"""What holds for every mechanism: structure, Jacobian, sampling, gradients, gates, state."""

import copy

import pytest
import torch
from mechanism_cases import CASES, OF_NODES, case, gates_of, normal, of_nodes
from torch import Tensor
from torch.testing import assert_close

from causalvae_fast.mechanisms import Mechanism

every = pytest.mark.parametrize("name", CASES)
gated = pytest.mark.parametrize("with_gates", [False, True], ids=["all edges", "gates"])


def gates(mechanism: Mechanism, with_gates: bool) -> Tensor | None:
    return gates_of(mechanism) if with_gates else None


@gated
@every
def test_linearize_against_jacrev(name: str, with_gates: bool) -> None:
    mechanism = case(name)
    z, edges = normal(3, mechanism.d), gates(mechanism, with_gates)
    value, jac = mechanism.linearize(z, edges)
    assert_close(value, mechanism(z, edges))
    of_one = torch.func.jacrev(lambda x: mechanism(x.unsqueeze(0), edges).squeeze(0))
    assert_close(jac, torch.stack([of_one(x) for x in z]))
    jac, offset = mechanism.expand(z, edges)
    assert_close((jac @ z.unsqueeze(-1)).squeeze(-1) + offset, value)


@gated
@every
def test_jacobian_is_zero_where_there_is_no_edge(name: str, with_gates: bool) -> None:
    mechanism = case(name)
    edges = gates(mechanism, with_gates)
    jac = mechanism.linearize(normal(20, mechanism.d), edges)[1]
    influence = mechanism.influence(edges)
    assert influence.shape == (mechanism.d, mechanism.d)
    assert not influence.triu().any()
    assert torch.equal((jac != 0).any(0), influence)


@every
def test_a_shut_gate_cuts_the_influence_exactly(name: str) -> None:
    mechanism = case(name)
    open_gates, shut = gates_of(mechanism), torch.zeros_like(mechanism.allowed, dtype=torch.float64)
    z, elsewhere = normal(3, mechanism.d), normal(3, mechanism.d, seed=1)
    assert torch.equal(mechanism(z, shut), mechanism(elsewhere, shut))
    child, parent = mechanism.allowed.nonzero()[-1].tolist()
    assert open_gates[child, parent] == 0
    moved = z.clone()
    offset = mechanism.d - mechanism.allowed.shape[0]  # of the last window
    moved[:, offset + parent] += 1
    assert torch.equal(mechanism(z, open_gates)[:, -1], mechanism(moved, open_gates)[:, -1])
    assert not torch.equal(mechanism(z)[:, -1], mechanism(moved)[:, -1])


@pytest.mark.parametrize("do", ["nothing", "shared", "per sample"])
@gated
@every
def test_solve_against_the_loop_over_nodes(name: str, with_gates: bool, do: str) -> None:
    mechanism = case(name)
    noise, edges = normal(5, mechanism.d), gates(mechanism, with_gates)
    mask = None if do == "nothing" else normal(*(() if do == "shared" else (5,)), mechanism.d, seed=2) > 0
    values = None if do == "nothing" else normal(5, mechanism.d, seed=3)
    z = mechanism.solve(noise, edges, mask, values)
    expected = torch.zeros_like(noise)
    for node in range(mechanism.d):
        expected[:, node] = (mechanism(expected, edges) + noise)[:, node]
        if mask is not None and values is not None:
            expected[:, node] = torch.where(mask[..., node], values[:, node], expected[:, node])
    assert_close(z, expected)
    assert_close(Mechanism.solve(mechanism, noise, edges, mask, values), expected)
    if mask is not None and values is not None:
        replaced = mask.expand_as(z)
        assert replaced.any()
        assert torch.equal(z[replaced], values[replaced])


@gated
@every
def test_noise_is_abducted(name: str, with_gates: bool) -> None:
    mechanism = case(name)
    z, edges = normal(5, mechanism.d), gates(mechanism, with_gates)
    assert_close(mechanism.solve(mechanism.abduct(z, edges), edges), z)


@every
def test_gradients(name: str) -> None:
    mechanism = case(name)
    z, edges = normal(2, mechanism.d).requires_grad_(), gates_of(mechanism).requires_grad_()
    parameters = list(mechanism.parameters())
    wanted = (z, edges, *parameters)

    # The parameters are changed in place by gradcheck.
    def expansion(z: Tensor, edges: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return mechanism.linearize(z, edges)

    def solution(noise: Tensor, edges: Tensor, *parameters: Tensor) -> Tensor:
        return mechanism.solve(noise, edges)

    assert torch.autograd.gradcheck(expansion, wanted, fast_mode=True)
    assert torch.autograd.gradcheck(solution, wanted, fast_mode=True)


@every
def test_state_and_copies(name: str) -> None:
    mechanism = case(name)
    z, edges = normal(3, mechanism.d), gates_of(mechanism)
    torch.manual_seed(1)
    other = CASES[name]().double().eval()
    other.load_state_dict(mechanism.state_dict())
    twin = copy.deepcopy(mechanism)
    for copied in (other, twin):
        assert torch.equal(copied(z, edges), mechanism(z, edges))
        assert torch.equal(copied.solve(z, edges), mechanism.solve(z, edges))
    before = mechanism(z)
    for tensor in [*twin.parameters(), *(b for b in twin.buffers() if b.is_floating_point())]:
        tensor.data.add_(1)
    assert torch.equal(mechanism(z), before)
    assert not torch.equal(twin(z), before)


@every
def test_empty_batch(name: str) -> None:
    mechanism = case(name).train()
    d, z = mechanism.d, normal(0, mechanism.d)
    assert mechanism(z).shape == mechanism.solve(z).shape == mechanism.abduct(z).shape == (0, d)
    assert mechanism.linearize(z)[1].shape == (0, d, d)


@pytest.mark.parametrize("name", OF_NODES)
def test_one_node_and_no_edges(name: str) -> None:
    """Without parents, z is a constant plus noise."""
    for d in (1, 3):
        mechanism = of_nodes(name, d, torch.zeros(d, d, dtype=torch.bool))
        z, constant = normal(4, d), mechanism(torch.zeros(1, d).double())
        assert torch.equal(mechanism(z), constant.expand(4, d))
        assert not mechanism.linearize(z)[1].any()
        assert_close(mechanism.solve(z), z + constant)


@every
def test_float32(name: str) -> None:
    mechanism = case(name).float()
    z = normal(3, mechanism.d).float()
    results = [mechanism(z), *mechanism.linearize(z), *mechanism.expand(z), mechanism.solve(z)]
    assert {result.dtype for result in results} == {torch.float32}
