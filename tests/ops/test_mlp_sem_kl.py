"""The numbers of `mlp_sem_kl`: values and gradients of the kernels, against reference and independent truths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from checks import BATCHES, ISAS, SIZES, each_dtype, same_bits
from covering import each_meeting
from inputs import DTYPES, upstream_gradient
from mlp_sem_kl_inputs import (
    EDGES,
    LOC,
    PIVOT,
    POSTERIORS,
    MLPSEMInputs,
    Truth,
    mlp_sem_inputs,
    op_for,
    truth,
)
from mpmath import mp
from test_mlp_ancestral_sample import SCALAR
from test_sem_kl import textbook_kl
from tolerances import RELATIVE, gradient_error
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from causalvae_fast.ops import pack_tril
from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops.mlp_sem_kl.cpu import mlp_sem_kl_cpu

ALL = (True,) * 9
FIXED_EDGES = tuple(k != EDGES for k in range(9))
UNPACKED = ("diagonal", "full")

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


def check_value(value: Tensor, expected: Truth, inputs: MLPSEMInputs, case: str = "") -> None:
    assert value.dtype == inputs.loc.dtype
    error = expected.value_error(value)
    assert error <= RELATIVE[value.dtype], f"value {case}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Truth, posterior: str, inputs: MLPSEMInputs, case: str = ""
) -> None:
    assert {g.dtype for g in gradients if g is not None} <= {inputs.loc.dtype}
    for name, error in expected.gradient_errors(gradients, posterior).items():
        assert error <= RELATIVE[inputs.loc.dtype], f"gradient of {name} {case}: {error:.1e}"


def kernel(
    activation: str, inputs: MLPSEMInputs, posterior: str, **options: Any
) -> tuple[Tensor, list[Tensor | None]]:
    packed = posterior == "packed"
    return mlp_sem_kl_cpu(activation, *inputs.laid_out(posterior), packed_scale_tril=packed, **options)


def check_kernels(activation: str, inputs: MLPSEMInputs, wanted: Sequence[bool] = ALL) -> None:
    """With each instruction set, and a full factor both dense and packed."""
    upstream = upstream_gradient(len(inputs.loc), inputs.loc.dtype)
    expected = truth(activation, inputs, upstream)
    for posterior in ("diagonal",) if inputs.factor.dim() == 2 else ("full", "packed"):
        for isa in ISAS:
            case = f"{posterior} {isa}"
            value, gradients = kernel(activation, inputs, posterior, upstream=upstream, wanted=wanted, isa=isa)
            check_value(value, expected, inputs, case)
            check_gradients(gradients, expected, posterior, inputs, case)
            check_value(kernel(activation, inputs, posterior, isa=isa)[0], expected, inputs, f"{case}, alone")


# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, posterior=UNPACKED, activation=list(ACTIVATIONS), dtype=DTYPES)
def test_reference(d: int, batch: int, posterior: str, activation: str, dtype: torch.dtype) -> None:
    check_kernels(activation, mlp_sem_inputs(batch, d, 3 if d > 100 else 9, posterior, dtype))


@each_meeting(hidden=(1, 2, 7, 8, 9, 16, 17, 300), d=(5, 17), posterior=UNPACKED, dtype=DTYPES)
def test_numbers_of_hidden_units(hidden: int, d: int, posterior: str, dtype: torch.dtype) -> None:
    check_kernels("tanh", mlp_sem_inputs(33, d, hidden, posterior, dtype))


@each_meeting(batch=(4, 8, 16, 31, 32, 33, 64, 65, 3000), posterior=UNPACKED, dtype=DTYPES)
def test_sizes_of_the_batch(batch: int, posterior: str, dtype: torch.dtype) -> None:
    """Around tiles, and many of them, whose sums are added up in double now and then."""
    check_kernels("silu", mlp_sem_inputs(batch, 5, 9, posterior, dtype))


@each_meeting(d=(4, 7, 8, 9, 15, 31, 32), posterior=UNPACKED, dtype=DTYPES)
def test_numbers_of_nodes_around_vectors(d: int, posterior: str, dtype: torch.dtype) -> None:
    check_kernels("softplus", mlp_sem_inputs(9, d, 5, posterior, dtype))


@each_dtype
@each_activation
@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_units_near_zero_and_saturated(scale: float, activation: str, dtype: torch.dtype) -> None:
    check_kernels(activation, mlp_sem_inputs(17, 3, scale=scale, dtype=dtype))


@pytest.mark.parametrize(
    ("posterior", "dtype"), [("diagonal", torch.float32), ("full", torch.float64), ("packed", torch.float32)]
)
def test_each_subset_of_gradients(posterior: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(17, 5, 3, posterior, dtype)
    upstream = upstream_gradient(17, dtype)
    expected = truth("silu", inputs, upstream)
    for wanted in itertools.product((False, True), repeat=9):
        value, gradients = kernel("silu", inputs, posterior, upstream=upstream, wanted=wanted)
        check_value(value, expected, inputs)
        assert [g is not None for g in gradients] == list(wanted)
        check_gradients(gradients, expected, posterior, inputs, str(wanted))


@each_posterior
@pytest.mark.parametrize("threads", [2, 4])
def test_number_of_threads(threads: int, posterior: str) -> None:
    """Enough work for four threads: the same values, the same gradients of samples, and the same bits again."""
    inputs = mlp_sem_inputs(701, 20, 8, posterior, torch.float32)
    upstream = upstream_gradient(701, torch.float32)
    alone, alone_gradients = kernel("tanh", inputs, posterior, upstream=upstream, wanted=ALL)
    torch.set_num_threads(threads)
    value, gradients = kernel("tanh", inputs, posterior, upstream=upstream, wanted=ALL)
    again, gradients_again = kernel("tanh", inputs, posterior, upstream=upstream, wanted=ALL)
    assert same_bits([value, *gradients], [again, *gradients_again]), "two runs differ"
    assert torch.equal(value, alone)
    for k in (0, 7, 8):
        assert same_bits([gradients[k]], [alone_gradients[k]])
    check_gradients(gradients, truth("tanh", inputs, upstream), posterior, inputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_in_pieces(threads: int) -> None:
    """What is kept of samples is limited, so a large batch passes over the nodes in two pieces."""
    torch.set_num_threads(threads)
    few = mlp_sem_inputs(47, 300, 1, dtype=torch.float32)
    repeated = {name: getattr(few, name).repeat(100, 1) for name in ("pivot", "loc", "factor")}
    inputs = few._replace(**repeated)
    upstream = upstream_gradient(4700, torch.float32)
    value, gradients = kernel("tanh", inputs, "diagonal", upstream=upstream, wanted=ALL)
    parts = [
        kernel("tanh", inputs.samples(part), "diagonal", upstream=upstream[part], wanted=ALL)
        for part in (slice(0, 2500), slice(2500, None))
    ]
    assert torch.equal(value, torch.cat([part[0] for part in parts]))
    for k, (whole, *halves) in enumerate(zip(gradients, *(part[1] for part in parts), strict=True)):
        assert whole is not None
        if k in (0, 7, 8):
            assert torch.equal(whole, torch.cat(halves))
        else:
            error = gradient_error(whole, sum(half.double() for half in halves), batched=False)
            assert error <= RELATIVE[torch.float32], f"{MLPSEMInputs._fields[k]}: {error:.1e}"


# Edges that are 0, which are skipped in blocks where their gradient is not wanted.


def with_closed_blocks(inputs: MLPSEMInputs) -> MLPSEMInputs:
    """Whole vectors of parents at 0: at the beginning, in the middle, at the end, and all of some nodes."""
    edges, d = inputs.edges.clone(), len(inputs.edges)
    for i in range(d):
        kind = i % 4
        closed = {0: slice(0, 16), 1: slice(16, 32), 2: slice(i // 16 * 16, i), 3: slice(0, i)}[kind]
        edges[i, :i][closed] = 0
        if kind < 2:
            edges[i, 32:i] = 0.5
    return inputs._replace(edges=edges)


@each_meeting(edges=("learned", "fixed"), posterior=UNPACKED, activation=list(ACTIVATIONS), dtype=DTYPES)
def test_closed_edges(edges: str, posterior: str, activation: str, dtype: torch.dtype) -> None:
    """Also the gradient of an edge that is closed: what it would do if it were opened."""
    wanted = ALL if edges == "learned" else FIXED_EDGES
    inputs = with_closed_blocks(mlp_sem_inputs(17, 70, 5, posterior, dtype))
    if wanted is ALL:
        expected = truth(activation, inputs, upstream_gradient(17, dtype)).gradients[EDGES]
        assert (expected[inputs.edges.tril(-1) == 0].abs() > 0).any()
    check_kernels(activation, inputs, wanted)


@each_dtype
@each_posterior
def test_weights_of_closed_edges_are_not_read_unless_the_edges_learn(posterior: str, dtype: torch.dtype) -> None:
    inputs = with_closed_blocks(mlp_sem_inputs(17, 70, 5, posterior, dtype))
    closed = torch.zeros(70, 70, dtype=torch.bool)
    closed[3::4] = True  # all edges of these nodes
    assert inputs.edges[closed.tril(-1)].count_nonzero() == 0
    spoilt = inputs._replace(w_in=inputs.w_in.masked_fill(closed.unsqueeze(1), torch.nan))
    ones = torch.ones(17, dtype=dtype)
    for isa in ISAS:
        options: dict[str, Any] = {"upstream": ones, "wanted": FIXED_EDGES, "isa": isa}
        value, gradients = kernel("silu", spoilt, posterior, **options)
        clean, clean_gradients = kernel("silu", inputs, posterior, **options)
        assert same_bits([value, *gradients], [clean, *clean_gradients])


# Against independent truths.


def mp_network(activation: str, given: dict[str, Any], node: int, z: Sequence[Any]) -> Any:
    phi, total = SCALAR[activation], given["b_out"][node]
    for k, w_out in enumerate(given["w_out"][node]):
        pre = given["b_in"][node][k]
        for j in range(node):
            pre += given["w_in"][node][k][j] * given["edges"][node][j] * z[j]
        total += w_out * phi(pre)
    return total


def mp_kl(activation: str, given: dict[str, Any]) -> Any:
    """Of one sample: the textbook formula, with the derivatives of the networks by differences."""
    z, d = given["pivot"], len(given["pivot"])
    jac, offset = mp.matrix(d, d), mp.matrix(d, 1)
    for i in range(d):
        offset[i] = mp_network(activation, given, i, z)
        for j in range(i):

            def partial(x: Any, i: int = i, j: int = j) -> Any:
                return mp_network(activation, given, i, [*z[:j], x, *z[j + 1 :]])

            jac[i, j] = mp.diff(partial, z[j])
            offset[i] -= jac[i, j] * z[j]
    factor = given["factor"]
    L = mp.matrix(d, d)
    for i in range(d):
        for j in range(i + 1):
            L[i, j] = factor[i][j] if isinstance(factor[0], list) else (factor[i] if i == j else 0)
    return textbook_kl(jac, offset, mp.matrix(given["log_sigma"]), mp.matrix(given["loc"]), L)


def mp_sample(inputs: MLPSEMInputs, sample: int) -> dict[str, Any]:
    def exact(numbers: Any) -> Any:
        return [exact(x) for x in numbers] if isinstance(numbers, list) else mp.mpf(numbers)

    own = inputs.samples(slice(sample, sample + 1))
    return {
        name: exact((t[0] if name in ("pivot", "loc", "factor") else t).tolist())
        for name, t in own._asdict().items()
    }


@each_activation
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize(("d", "hidden"), [(1, 1), (2, 3), (5, 2)])
def test_values_against_mpmath(d: int, hidden: int, posterior: str, activation: str) -> None:
    inputs = mlp_sem_inputs(2, d, hidden, posterior)
    with mp.workdps(50):
        known = [float(mp_kl(activation, mp_sample(inputs, sample))) for sample in range(2)]
    expected = truth(activation, inputs, torch.ones(2))._replace(value=torch.tensor(known, dtype=torch.float64))
    for isa in ISAS:
        check_value(kernel(activation, inputs, posterior, isa=isa)[0], expected, inputs, isa)


@pytest.mark.parametrize(("activation", "posterior"), [("tanh", "diagonal"), ("silu", "full")])
def test_gradients_against_mpmath(activation: str, posterior: str) -> None:
    """Every partial derivative of the textbook formula, by differences in 50 digits."""
    inputs = mlp_sem_inputs(1, 3, 2, posterior)
    gradients = kernel(activation, inputs, posterior, upstream=torch.ones(1).double(), wanted=ALL)[1]
    known = []
    with mp.workdps(50):
        given = mp_sample(inputs, 0)
        for name, gradient in zip(MLPSEMInputs._fields, gradients, strict=True):
            assert gradient is not None
            expected = torch.zeros_like(gradient)
            for index in itertools.product(*map(range, gradient.shape)):
                own = index[1:] if name in ("pivot", "loc", "factor") else index

                def partial(x: Any, name: str = name, own: tuple[int, ...] = own) -> Any:
                    def replaced(numbers: Any, place: tuple[int, ...]) -> Any:
                        if not place:
                            return x
                        at = place[0]
                        return [*numbers[:at], replaced(numbers[at], place[1:]), *numbers[at + 1 :]]

                    return mp_kl(activation, given | {name: replaced(given[name], own)})

                at: Any = given[name]
                for k in own:
                    at = at[k]
                expected[index] = float(mp.diff(partial, at))
            known.append(expected)
    truth_of_mp = truth(activation, inputs, torch.ones(1))._replace(gradients=tuple(known))
    check_gradients(gradients, truth_of_mp, posterior, inputs)


def network_kl(activation: str, *tensors: Tensor) -> Tensor:
    """torch.func for the Jacobian, torch.distributions for the divergence."""
    pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor = tensors
    phi = {
        "tanh": torch.tanh,
        "silu": torch.nn.functional.silu,
        "softplus": torch.nn.functional.softplus,
        "leaky_relu": torch.nn.functional.leaky_relu,
    }[activation]
    weights = (w_in * edges.unsqueeze(1)) * torch.ones_like(edges).tril(-1).unsqueeze(1)

    def network(z: Tensor) -> Tensor:
        return (w_out * phi(weights @ z + b_in)).sum(-1) + b_out

    jac = torch.vmap(torch.func.jacrev(network))(pivot)
    offset = torch.vmap(network)(pivot) - (jac @ pivot.unsqueeze(-1)).squeeze(-1)
    W = torch.eye(len(b_out), dtype=loc.dtype) - jac
    mean = torch.linalg.solve_triangular(W, offset.unsqueeze(-1), upper=False).squeeze(-1)
    noise = torch.exp(log_sigma).diag().expand_as(W)
    p = MultivariateNormal(mean, scale_tril=torch.linalg.solve_triangular(W, noise, upper=False))
    L = factor.diag_embed() if factor.dim() == 2 else factor.tril()
    return kl_divergence(MultivariateNormal(loc, scale_tril=L, validate_args=False), p)


@each_meeting(2, d=(1, 2, 5, 16), posterior=UNPACKED, activation=list(ACTIVATIONS))
def test_torch_func_and_distributions(d: int, posterior: str, activation: str) -> None:
    inputs = mlp_sem_inputs(17, d, 4, posterior)
    upstream = upstream_gradient(17, torch.float64)
    leaves = inputs.leaves()
    value = network_kl(activation, *leaves)
    gradients = torch.autograd.grad(value, leaves, upstream, materialize_grads=True)
    expected = truth(activation, inputs, upstream)
    # Autograd finds that of the pivot by a difference that cancels, of numbers as large as the gradient of loc.
    error = (gradients[PIVOT] - expected.gradients[PIVOT]).abs().max() / gradients[LOC].abs().max()
    assert error <= RELATIVE[torch.float64]
    known = (expected.gradients[PIVOT], *gradients[1:])
    expected = expected._replace(value=value.detach(), gradients=known)
    for isa in ISAS:
        found = kernel(activation, inputs, posterior, upstream=upstream, wanted=ALL, isa=isa)
        check_value(found[0], expected, inputs, isa)
        check_gradients(found[1], expected, posterior, inputs, isa)


@each_dtype
@each_activation
@pytest.mark.parametrize("d", [1, 6, 40])
def test_without_edges_each_node_is_alone(d: int, activation: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(17, d, dtype=dtype)
    inputs = inputs._replace(edges=inputs.edges.triu())
    exact = inputs.map(Tensor.double)
    mean = (exact.w_out * ACTIVATIONS[activation](exact.b_in)[0]).sum(-1) + exact.b_out
    p = Independent(Normal(mean, exact.log_sigma.exp()), 1)
    known = kl_divergence(Independent(Normal(exact.loc, exact.factor), 1), p)
    expected = truth(activation, inputs, torch.ones(17))._replace(value=known)
    check_value(op_for(activation, "diagonal")(*inputs), expected, inputs)
    dense = inputs._replace(factor=inputs.factor.diag_embed())
    check_value(op_for(activation, "full")(*dense), expected, inputs)
    check_value(op_for(activation, "packed")(*dense._replace(factor=pack_tril(dense.factor))), expected, inputs)
