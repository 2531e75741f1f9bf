"""`mlp_sem_kl` in Triton where there is a GPU: parity with the reference, the same bits, streams and graphs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from checks import BATCHES, SIZES, each_dtype, same_bits
from gpu_checks import captured, on_a_late_stream, overwrite
from inputs import upstream_gradient
from mlp_sem_kl_inputs import POSTERIORS, MLPSEMInputs, mlp_sem_inputs, op_for, truth
from tolerances import RELATIVE
from torch import Tensor
from triton_checks import skip_without_gpu

import causalvae_fast as cvf
from causalvae_fast.ops import backends
from causalvae_fast.ops._activations import ACTIVATIONS

skip_without_gpu()

pytestmark = pytest.mark.gpu

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend("triton"):
        yield


def value_and_gradients(activation: str, inputs: MLPSEMInputs, posterior: str, upstream: Tensor) -> list[Tensor]:
    leaves = inputs.leaves()
    value = op_for(activation, posterior)(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def on_gpu(inputs: MLPSEMInputs, posterior: str) -> MLPSEMInputs:
    return inputs.laid_out(posterior).map(Tensor.cuda)


def check(activation: str, batch: int, d: int, hidden: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = mlp_sem_inputs(batch, d, hidden, "diagonal" if posterior == "diagonal" else "full", dtype)
    upstream = upstream_gradient(batch, dtype)
    expected = truth(activation, inputs, upstream)
    value, *found = value_and_gradients(activation, on_gpu(inputs, posterior), posterior, upstream.cuda())
    assert expected.value_error(value.cpu()) <= RELATIVE[dtype]
    for name, error in expected.gradient_errors([g.cpu() for g in found], posterior).items():
        assert error <= RELATIVE[dtype], f"gradient of {name}: {error:.1e}"


def test_it_is_the_default() -> None:
    assert backends()["mlp_sem_kl"]["triton"].available


@each_dtype
@each_activation
@each_posterior
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"B{batch}")
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_reference(d: int, batch: int, posterior: str, activation: str, dtype: torch.dtype) -> None:
    check(activation, batch, d, 3 if d > 100 else 9, posterior, dtype)


@each_dtype
@each_posterior
@pytest.mark.parametrize(("batch", "d", "hidden"), [(1024, 16, 16), (1024, 64, 16), (256, 128, 32), (33, 17, 300)])
def test_large_batches_and_many_units(batch: int, d: int, hidden: int, posterior: str, dtype: torch.dtype) -> None:
    check("tanh", batch, d, hidden, posterior, dtype)


@each_posterior
def test_two_runs_give_the_same_bits_in_any_stream(posterior: str) -> None:
    inputs = mlp_sem_inputs(300, 40, 16, "diagonal" if posterior == "diagonal" else "full", torch.float32)
    given, upstream = on_gpu(inputs, posterior), upstream_gradient(300, torch.float32).cuda()
    expected = value_and_gradients("tanh", given, posterior, upstream)
    found = on_a_late_stream(
        given, lambda *late: value_and_gradients("tanh", MLPSEMInputs(*late), posterior, upstream)
    )
    assert same_bits(found, expected)


@each_posterior
def test_cuda_graph(posterior: str) -> None:
    """Captured once, replayed on other numbers: no launch synchronises."""
    kind = "diagonal" if posterior == "diagonal" else "full"
    inputs, others = (
        on_gpu(mlp_sem_inputs(17, 40, 9, kind, torch.float32, scale=s), posterior) for s in (1.0, 0.5)
    )
    leaves, ones = inputs.leaves(), torch.ones(17, device="cuda")

    def step() -> list[Tensor]:
        value = op_for("silu", posterior)(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves, ones)]

    graph, results = captured(step)
    for numbers in (others, inputs):
        overwrite(leaves, numbers)
        graph.replay()
        assert same_bits(results, value_and_gradients("silu", numbers, posterior, ones))
