"""`sem_kl` as PyTorch sees it: autograd to any order, torch.library, torch.compile, torch.func, autocast."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from checks import check_gradients, each_dtype, each_jac, each_kernel, each_posterior
from covering import each_meeting
from fused_checks import QUICK_CHECKS
from inputs import POSTERIORS, SHARING, SEMInputs, sem_inputs, true_sem_kl, upstream_gradient
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.testing import assert_close

from causalvae_fast.ops import sem_kl
from causalvae_fast.ops.sem_kl.autograd import sem_kl_op
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

REDUCTIONS = ("none", "mean", "sum")
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def function_of(inputs: SEMInputs, op: Callable[..., Tensor] = sem_kl, **options: Any) -> Callable[..., Tensor]:
    """The op as a function of its five tensors."""
    return lambda *tensors: SEMInputs(*tensors).call(op, **options)


# Autograd.


@each_meeting(2, reduction=REDUCTIONS, posterior=POSTERIORS, jac=SHARING, offset=SHARING)
def test_gradcheck(reduction: str, posterior: str, jac: str, offset: str) -> None:
    leaves = sem_inputs(3, 4, posterior, jac, offset).leaves()
    assert gradcheck(function_of(leaves, reduction=reduction), tuple(leaves))
    assert gradgradcheck(function_of(leaves, reduction=reduction), tuple(leaves))


@each_jac
@each_posterior
def test_gradcheck_of_a_large_sample(posterior: str, jac: str) -> None:
    leaves = sem_inputs(2, 40, posterior, jac).leaves()
    assert gradcheck(function_of(leaves), tuple(leaves), fast_mode=True)
    assert gradgradcheck(function_of(leaves), tuple(leaves), fast_mode=True)


@each_reduction
@each_posterior
@each_kernel
def test_gradients_that_can_be_differentiated_are_the_same(d: int, posterior: str, reduction: str) -> None:
    """gradgradcheck compares them with their own derivatives only."""
    leaves = sem_inputs(17, d, posterior).leaves()
    value = -3 * leaves.call(sem_kl, reduction=reduction).sum()
    expected = torch.autograd.grad(value, leaves, retain_graph=True)
    assert_close(torch.autograd.grad(value, leaves, create_graph=True), expected)


@each_reduction
@each_posterior
@each_kernel
def test_a_graph_that_is_kept_gives_the_same_gradients_again(d: int, posterior: str, reduction: str) -> None:
    leaves = sem_inputs(17, d, posterior).leaves()
    value = leaves.call(sem_kl, reduction=reduction).sum()
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    kept = [g.clone() for g in first]
    for g in first:
        g.zero_()  # as an optimizer may
    assert_close(torch.autograd.grad(value, leaves, retain_graph=True), tuple(kept), rtol=0, atol=0)
    assert_close(torch.autograd.grad(-2 * value, leaves), tuple(-2 * g for g in kept))


@each_reduction
def test_a_freed_graph_raises(reduction: str) -> None:
    value = sem_inputs(3, 4).leaves().call(sem_kl, reduction=reduction).sum()
    value.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        value.backward()


@each_reduction
def test_an_input_that_was_changed_in_place_raises(reduction: str) -> None:
    leaves = sem_inputs(3, 4).leaves()
    loc = leaves.loc.clone()
    value = leaves._replace(loc=loc).call(sem_kl, reduction=reduction).sum()
    loc.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@each_reduction
@each_kernel
def test_a_leaf_that_is_used_more_than_once(d: int, reduction: str) -> None:
    inputs = sem_inputs(17, d)
    x, jac = inputs.loc.clone().requires_grad_(), inputs.jac.clone().requires_grad_()
    twice = inputs._replace(jac=jac, loc=x, offset=x)
    value = twice.call(sem_kl, reduction=reduction).sum() + twice.call(sem_kl, reduction="sum")
    expected = inputs._replace(offset=inputs.loc)
    weight = 1 + (1 / 17 if reduction == "mean" else 1)
    gradients = true_sem_kl(expected, torch.full((17,), weight, dtype=torch.float64))[1]
    got = torch.autograd.grad(value, (jac, x))
    assert_close(got, (gradients[0], gradients[1] + gradients[3]))


@each_reduction
@each_posterior
@each_kernel
def test_gradients_accumulate(d: int, posterior: str, reduction: str) -> None:
    leaves = sem_inputs(17, d, posterior).leaves()
    for _ in range(3):
        leaves.call(sem_kl, reduction=reduction).sum().backward()
    once = torch.autograd.grad(leaves.call(sem_kl, reduction=reduction).sum(), leaves)
    assert_close([leaf.grad for leaf in leaves], [3 * g for g in once])


def test_gradients_of_neighbours_in_a_graph() -> None:
    """Inputs that are results of other operations, and a result that others use."""
    leaves = sem_inputs(17, 5).leaves()
    values = []
    for op in (function_of(leaves), sem_kl_reference):
        inputs = leaves.map(lambda t: 2 * t.sin() + 3)
        value = op(*inputs._replace(factor=inputs.factor.exp()))
        values.append(torch.autograd.grad(value.square().sum(), leaves))
    assert_close(*values)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@each_reduction
@each_posterior
def test_without_gradients(mode: Callable[[], Any], reduction: str, posterior: str) -> None:
    leaves = sem_inputs(17, 5, posterior).leaves()
    expected = leaves.call(sem_kl, reduction=reduction)
    with mode():
        value = leaves.call(sem_kl, reduction=reduction)
    assert expected.requires_grad
    assert not value.requires_grad
    assert torch.equal(value, expected)
    with mode():
        made_inside = sem_inputs(17, 5, posterior).call(sem_kl, reduction=reduction)
    assert torch.equal(made_inside, expected)


# torch.library.


@each_jac
@each_posterior
def test_opcheck(posterior: str, jac: str) -> None:
    offset = "shared" if jac == "per_sample" else "per_sample"
    inputs = sem_inputs(3, 4, posterior, jac, offset).leaves()
    torch.library.opcheck(sem_kl_op.forward_op, (*inputs, "cpu"), test_utils=QUICK_CHECKS)


@pytest.mark.parametrize(
    ("posterior", "jac", "wanted"),
    [
        ("full", "per_sample", (True,) * 5),
        ("diagonal", "shared", (True, False, True, False, True)),
        ("full", "shared", (False,) * 5),
    ],
    ids=["all", "three", "none"],
)
def test_opcheck_with_gradients(posterior: str, jac: str, wanted: tuple[bool, ...]) -> None:
    leaves = sem_inputs(3, 4, posterior, jac).leaves(wanted)
    upstream = upstream_gradient(3, torch.float64)
    # Symbolic shapes, which take seconds, for the first alone; those of forward_op are checked in test_fused.py.
    checks = (*QUICK_CHECKS, *(("test_aot_dispatch_dynamic",) if all(wanted) else ()))
    torch.library.opcheck(sem_kl_op.backward_op, (upstream, *leaves, "cpu", list(wanted)), test_utils=checks)
    reduced = (*(t.detach() for t in leaves), "cpu", "mean", list(wanted))
    torch.library.opcheck(sem_kl_op.reduced_op, reduced, test_utils=checks)


# torch.compile.


@pytest.fixture
def compiler() -> Iterator[Callable[..., Any]]:
    """torch.compile(fullgraph=True) that starts, and leaves, with nothing compiled."""
    torch._dynamo.reset()
    yield lambda function, **options: torch.compile(function, fullgraph=True, **options)
    torch._dynamo.reset()


# Every case with the quickest backend that traces the backward pass; code generation takes seconds.
COMPILED = [(posterior, reduction, "aot_eager") for posterior in POSTERIORS for reduction in REDUCTIONS]
COMPILED += [("full", "mean", "inductor")]  # without a reduction: test_inductor of test_fused.py


@pytest.mark.parametrize(("posterior", "reduction", "backend"), COMPILED)
def test_compile(compiler: Callable[..., Any], posterior: str, reduction: str, backend: str) -> None:
    leaves = sem_inputs(17, 5, posterior).leaves()

    def loss(*tensors: Tensor) -> Tensor:
        return (2 * SEMInputs(*tensors).call(sem_kl, reduction=reduction)).cos().sum()

    compiled = compiler(loss, backend=backend)
    expected, value = loss(*leaves), compiled(*leaves)
    assert_close(value, expected)
    assert_close(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves))
    with torch.no_grad():
        assert_close(compiled(*leaves), expected)


@each_jac
@each_posterior
def test_compile_with_dynamic_shapes(compiler: Callable[..., Any], posterior: str, jac: str) -> None:
    """One graph serves all batches, and it is compiled for some of the inputs needing no gradient."""
    graphs = []

    def count(graph: torch.fx.GraphModule, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    wanted = (True, False, True, True, True)
    compiled = compiler(
        function_of(sem_inputs(2, 5, posterior, jac), reduction="mean"), dynamic=True, backend=count
    )
    for batch, d in ((17, 5), (3, 5), (8, 9), (40, 40)):
        inputs = sem_inputs(batch, d, posterior, jac)
        leaves = inputs.leaves(wanted)
        compiled(*leaves).backward()
        expected = true_sem_kl(inputs, torch.full((batch,), 1 / batch, dtype=torch.float64))[1]
        check_gradients([leaf.grad for leaf in leaves], expected, inputs)
        assert leaves.offset.grad is None
    assert len(graphs) == 1


def test_compile_with_a_backend_of_choice(compiler: Callable[..., Any]) -> None:
    leaves = sem_inputs(3, 4).leaves()
    for name in ("reference", "cpu"):
        compiled = compiler(function_of(leaves, backend=name), backend="aot_eager")
        assert_close(compiled(*leaves), leaves.call(sem_kl))


# torch.func.


@each_jac
@each_posterior
@each_kernel
def test_func_grad_and_vjp(d: int, posterior: str, jac: str) -> None:
    inputs = sem_inputs(17, d, posterior, jac)
    upstream = upstream_gradient(17, torch.float64)
    expected = true_sem_kl(inputs, upstream)[1]
    weighted = lambda *tensors: (upstream * SEMInputs(*tensors).call(sem_kl)).sum()  # noqa: E731
    check_gradients(torch.func.grad(weighted, argnums=tuple(range(5)))(*inputs), expected, inputs)
    check_gradients(torch.func.vjp(function_of(inputs), *inputs)[1](upstream), expected, inputs)
    alone = torch.func.grad(weighted, argnums=3)(*inputs)
    check_gradients([None, None, None, alone, None], expected, inputs)


@each_jac
@each_posterior
def test_func_jvp(posterior: str, jac: str) -> None:
    inputs, tangents = sem_inputs(17, 5, posterior, jac), sem_inputs(17, 5, posterior, jac, seed=1)
    expected = torch.func.jvp(sem_kl_reference, inputs, tangents)
    assert_close(torch.func.jvp(function_of(inputs), tuple(inputs), tuple(tangents)), expected)


@each_posterior
def test_func_jacobians(posterior: str) -> None:
    inputs = sem_inputs(3, 4, posterior)
    expected = torch.autograd.functional.jacobian(sem_kl_reference, tuple(inputs))
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert_close(jacobian(function_of(inputs), argnums=tuple(range(5)))(*inputs), expected)


@each_posterior
@each_reduction
def test_func_hessian(posterior: str, reduction: str) -> None:
    """With respect to loc it is W^T D^-1 W, whatever the posterior."""
    inputs = sem_inputs(1, 4, posterior)
    W = torch.eye(4) - inputs.jac[0].tril(-1)
    expected = W.T @ torch.exp(-2 * inputs.log_sigma).diag() @ W
    of_loc = lambda loc: inputs._replace(loc=loc).call(sem_kl, reduction=reduction).sum()  # noqa: E731
    assert_close(torch.func.hessian(of_loc)(inputs.loc).reshape(4, 4), expected)
    reverse_twice = torch.func.jacrev(torch.func.jacrev(of_loc))(inputs.loc)
    assert_close(reverse_twice.reshape(4, 4), expected)


@each_jac
@each_posterior
def test_vmap_over_each_input(posterior: str, jac: str) -> None:
    """An ensemble along any dimension of any of the inputs."""
    members = [sem_inputs(17, 5, posterior, jac, seed=seed) for seed in range(3)]
    for k, dim in itertools.product(range(5), (0, 1, -1)):
        in_dims = [dim if k == i else None for i in range(5)]
        stacked = list(members[0])
        stacked[k] = torch.stack([m[k] for m in members], dim)
        values = torch.vmap(function_of(members[0]), in_dims=tuple(in_dims))(*stacked)
        ensemble = [[m[i] if i == k else members[0][i] for i in range(5)] for m in members]
        assert_close(values, torch.stack([sem_kl_reference(*inputs) for inputs in ensemble]))


@each_posterior
def test_vmap_of_gradients(posterior: str) -> None:
    """Gradients of each sample in a shared jac, as in differential privacy, and nested."""
    inputs = sem_inputs(17, 5, posterior, "shared", "shared")

    def loss(op: Callable[..., Tensor], jac: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
        return op(jac, inputs.offset, inputs.log_sigma, loc[None], factor[None]).sum()

    def gradients(op: Callable[..., Tensor]) -> Any:
        single = torch.func.grad(lambda *tensors: loss(op, *tensors), argnums=(0, 1))
        per_sample = torch.vmap(single, in_dims=(None, 0, 0))
        nested = torch.vmap(per_sample, in_dims=(0, None, None))
        jacs = torch.stack([inputs.jac, 2 * inputs.jac])
        return per_sample(inputs.jac, inputs.loc, inputs.factor), nested(jacs, inputs.loc, inputs.factor)

    assert_close(gradients(lambda *tensors: SEMInputs(*tensors).call(sem_kl)), gradients(sem_kl_reference))


def test_vmap_with_autograd_outside() -> None:
    inputs = sem_inputs(17, 5)
    jacs = torch.stack([inputs.jac, 2 * inputs.jac]).requires_grad_()
    results = []
    for op in (function_of(inputs), sem_kl_reference):
        values = torch.vmap(lambda jac, op=op: op(jac, *inputs[1:]))(jacs)
        results.append((values, *torch.autograd.grad(values.square().sum(), jacs)))
    assert_close(*results)


def test_gradients_of_a_batch_of_upstream_gradients() -> None:
    leaves = sem_inputs(3, 4).leaves()
    upstreams = torch.eye(3, dtype=torch.float64)
    batched = torch.autograd.grad(leaves.call(sem_kl), leaves, upstreams, is_grads_batched=True)
    expected = torch.autograd.grad(sem_kl_reference(*leaves), leaves, upstreams, is_grads_batched=True)
    assert_close(batched, expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode_outside_of_func(requires_grad: bool) -> None:
    inputs, tangents = sem_inputs(3, 4), sem_inputs(3, 4, seed=1)
    expected = torch.func.jvp(sem_kl_reference, inputs, tangents)[1]
    with dual_level():
        duals = [make_dual(t.requires_grad_(requires_grad), u) for t, u in zip(inputs, tangents, strict=True)]
        tangent = unpack_dual(SEMInputs(*duals).call(sem_kl)).tangent
    assert tangent is not None, "the tangent was dropped"
    assert_close(tangent, expected)


# Autocast: it computes in float32 whatever autocast is set to.


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@each_reduction
@each_posterior
def test_autocast(posterior: str, reduction: str, low: torch.dtype) -> None:
    inputs = sem_inputs(17, 5, posterior, dtype=torch.float32).map(lambda t: t.to(low))
    leaves = inputs.leaves()
    with torch.autocast("cpu", dtype=low):
        value = leaves.call(sem_kl, reduction=reduction)
    assert value.dtype == torch.float32
    converted = inputs.map(torch.Tensor.float).leaves()
    expected = converted.call(sem_kl, reduction=reduction)
    assert torch.equal(value, expected)
    gradients = torch.autograd.grad(value.sum(), leaves)
    assert [g.dtype for g in gradients] == [low] * 5
    expected_gradients = torch.autograd.grad(expected.sum(), converted)
    assert_close(gradients, tuple(g.to(low) for g in expected_gradients))
    with pytest.raises(TypeError, match=r"^loc must be float32 or float64"):
        leaves.call(sem_kl, reduction=reduction)


@each_dtype
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_leaves_higher_precision_alone(dtype: torch.dtype, backend: str) -> None:
    inputs = sem_inputs(17, 40, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = inputs.call(sem_kl, backend=backend)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(value, inputs.call(sem_kl, backend=backend))


def test_autocast_of_mixed_dtypes() -> None:
    """An encoder under autocast gives bfloat16; the parameters of the prior are float32."""
    inputs = sem_inputs(17, 5, dtype=torch.float32)
    mixed = inputs._replace(loc=inputs.loc.bfloat16(), factor=inputs.factor.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = mixed.call(sem_kl)
    assert torch.equal(value, mixed.map(torch.Tensor.float).call(sem_kl))
