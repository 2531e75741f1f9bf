"""The Triton kernels where there is a GPU: parity with the reference, streams, graphs, devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from checks import (
    ALL,
    BATCHES,
    SIZES,
    check_gradients,
    check_value,
    each_dtype,
    each_jac,
    each_offset,
    each_posterior,
    same_bits,
)
from fused_checks import fresh_compiler
from gpu_checks import captured, on_a_late_stream, overwrite
from inputs import SEMInputs, sem_inputs, true_sem_kl, upstream_gradient
from torch import Tensor
from triton_checks import skip_without_gpu

import causalvae_fast as cvf
from causalvae_fast.ops import backends, pack_tril, sem_kl

skip_without_gpu()

pytestmark = pytest.mark.gpu

EACH_KERNEL = (5, 40, 64, 100, 257)


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend("triton"):
        yield


def on_gpu(inputs: SEMInputs, device: str = "cuda") -> SEMInputs:
    return inputs.map(lambda t: t.to(device))


def value_and_gradients(inputs: SEMInputs, upstream: Tensor) -> list[Tensor]:
    """On the device of the inputs, by the public function."""
    leaves = inputs.leaves()
    value = leaves.call(sem_kl)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def on_cpu(tensors: list[Tensor]) -> list[Tensor]:
    return [t.cpu() for t in tensors]


def test_it_is_the_default() -> None:
    assert backends()["sem_kl"]["triton"].available
    assert torch.cuda.get_device_name() in backends()["sem_kl"]["triton"].detail


@each_dtype
@each_offset
@each_jac
@each_posterior
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"B{batch}")
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_reference(d: int, batch: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs, upstream = sem_inputs(batch, d, posterior, jac, offset, dtype), upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    value, *found = on_cpu(value_and_gradients(on_gpu(inputs), upstream.cuda()))
    check_value(value, expected, inputs)
    check_gradients(found, expected_gradients, inputs)
    check_value(on_gpu(inputs).call(sem_kl).cpu(), expected, inputs, "no gradient")


@each_dtype
@each_posterior
@pytest.mark.parametrize(("batch", "d"), [(1024, 16), (1024, 64), (256, 128), (64, 256), (16, 512)])
def test_large_batches(batch: int, d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs, upstream = sem_inputs(batch, d, posterior, dtype=dtype), upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    value, *found = on_cpu(value_and_gradients(on_gpu(inputs), upstream.cuda()))
    check_value(value, expected, inputs)
    check_gradients(found, expected_gradients, inputs)


@each_dtype
@each_posterior
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_packed(d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs, upstream = sem_inputs(17, d, posterior, dtype=dtype), upstream_gradient(17, dtype)
    expected, (grad_jac, *others) = true_sem_kl(inputs, upstream)
    leaves = [pack_tril(inputs.jac), *inputs[1:4], inputs.factor]
    if posterior == "full":
        leaves[4], others[3] = pack_tril(inputs.factor), pack_tril(others[3])
    leaves = [t.cuda().requires_grad_() for t in leaves]
    value = sem_kl(*leaves[:4], **{inputs.factor_name: leaves[4]})
    found = torch.autograd.grad(value, leaves, upstream.cuda())
    check_value(value.detach().cpu(), expected, inputs)
    check_gradients([g.cpu() for g in found], (pack_tril(grad_jac), *others), inputs)


@each_jac
@each_posterior
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_two_runs_give_the_same_bits(d: int, posterior: str, jac: str) -> None:
    inputs = on_gpu(sem_inputs(300, d, posterior, jac, dtype=torch.float32))
    upstream = upstream_gradient(300, torch.float32).cuda()
    assert same_bits(value_and_gradients(inputs, upstream), value_and_gradients(inputs, upstream))


@each_posterior
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_another_stream(d: int, posterior: str) -> None:
    """The launch is on the current stream: behind what that stream still has to do, and before what follows."""
    inputs = on_gpu(sem_inputs(17, d, posterior, dtype=torch.float32))
    upstream = torch.ones(17, device="cuda")
    expected = value_and_gradients(inputs, upstream)
    found = on_a_late_stream(inputs, lambda *late: value_and_gradients(SEMInputs(*late), upstream))
    assert same_bits(found, expected)


@each_jac
@each_posterior
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_cuda_graph(d: int, posterior: str, jac: str) -> None:
    """Captured once, replayed on other numbers: no launch synchronises."""
    inputs = on_gpu(sem_inputs(17, d, posterior, jac, dtype=torch.float32))
    others = on_gpu(sem_inputs(17, d, posterior, jac, dtype=torch.float32, seed=1))
    leaves = inputs.leaves()

    def step() -> list[Tensor]:
        value = leaves.call(sem_kl, reduction="none")
        return [value.detach(), *torch.autograd.grad(value, leaves, torch.ones_like(value))]

    graph, results = captured(step)
    for numbers in (others, inputs):
        overwrite(leaves, numbers)
        graph.replay()
        expected = value_and_gradients(numbers, torch.ones(17, device="cuda"))
        assert same_bits(results, expected)


@each_posterior
def test_compiled(posterior: str) -> None:
    inputs = on_gpu(sem_inputs(17, 40, posterior))
    leaves, same = inputs.leaves(), inputs.leaves()
    with fresh_compiler():
        compiled = torch.compile(lambda x: x.call(sem_kl, reduction="mean"), fullgraph=True)
        found = torch.autograd.grad(compiled(leaves), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(same.call(sem_kl, reduction="mean"), same))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one() -> None:
    inputs = sem_inputs(17, 40, dtype=torch.float32)
    found = value_and_gradients(on_gpu(inputs, "cuda:1"), torch.ones(17, device="cuda:1"))
    assert found[0].device.index == 1
    assert torch.cuda.current_device() == 0
    expected = value_and_gradients(on_gpu(inputs), torch.ones(17, device="cuda"))
    assert same_bits(on_cpu(found), on_cpu(expected))


def test_offsets_beyond_32_bits() -> None:
    """The last samples of 2^31 elements, against a call of their own."""
    d, batch = 64, 2**31 // 64**2 + 3
    if torch.cuda.mem_get_info()[0] < 3 * 4 * batch * d * d:
        pytest.skip("needs 26 GB")
    inputs = on_gpu(sem_inputs(3, d, "diagonal", dtype=torch.float32))
    jac = torch.empty(batch, d, d, device="cuda")
    jac[-3:] = inputs.jac
    rows = [inputs.offset, inputs.loc, inputs.factor]
    offset, loc, scale = (torch.cat((t.new_ones(batch - 3, d), t)) for t in rows)
    jac[:-3] = 0
    from causalvae_fast.ops.sem_kl.triton_kernel import sem_kl_triton

    upstream = torch.ones(3, device="cuda")
    expected, expected_gradients = sem_kl_triton(*inputs, upstream=upstream, wanted=ALL)
    value, found = sem_kl_triton(
        jac, offset, inputs.log_sigma, loc, scale, upstream=upstream[:1].expand(batch), wanted=ALL
    )
    assert torch.equal(value[-3:], expected)
    for k in (0, 1, 3, 4):
        gradient, alone = found[k], expected_gradients[k]
        assert gradient is not None
        assert alone is not None
        assert torch.equal(gradient[-3:], alone)
