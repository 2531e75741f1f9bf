"""`sem_kl` in Triton, run by its interpreter on the CPU: the grid of test_sem_kl.py, and what is its own."""

import itertools
import math
import mmap
from collections.abc import Iterator

import pytest
import torch
from checks import (
    ALL,
    check_gradients,
    check_value,
    each_jac,
    each_posterior,
    same_bits,
    value_and_gradients,
)
from covering import each_meeting
from fused_checks import check_kernels, gradients
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs, true_sem_kl, upstream_gradient
from tolerances import RELATIVE, gradient_error
from triton_checks import needs_interpreter, tensor_core_products

import causalvae_fast as cvf
from causalvae_fast.ops import pack_tril, sem_kl
from causalvae_fast.ops.sem_kl.autograd import sem_kl_ops

pytestmark = needs_interpreter

# The interpreter takes milliseconds for each tile of each sample. (d, batch)
CASES = [(d, batch) for d in (1, 2, 3, 5, 16) for batch in (0, 1, 17)]
CASES += [(17, 3), (33, 3), (64, 0), (64, 2), (100, 1), (257, 1)]
EACH_KERNEL = (5, 33, 70)  # d for several samples at a time, a sample at a time, and tiles of a sample


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    with cvf.use_backend("triton"):
        yield


def kernel(inputs: SEMInputs, **options: object) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    from causalvae_fast.ops.sem_kl.triton_kernel import sem_kl_triton

    value, found = sem_kl_triton(*inputs, **options)  # type: ignore[arg-type]
    return value, found


@each_meeting(shape=CASES, posterior=POSTERIORS, jac=SHARING, dtype=DTYPES)
def test_reference(shape: tuple[int, int], posterior: str, jac: str, dtype: torch.dtype) -> None:
    d, batch = shape
    offset = jac if d > 33 else "per_sample" if jac == "shared" else "shared"
    inputs, upstream = sem_inputs(batch, d, posterior, jac, offset, dtype), upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    value, found = kernel(inputs, upstream=upstream, wanted=ALL)
    check_value(value, expected, inputs)
    check_gradients(found, expected_gradients, inputs)
    if d < 100:
        check_value(kernel(inputs)[0], expected, inputs, "no gradient")


@pytest.mark.parametrize(
    ("d", "rows", "packed", "dtype"),
    [
        (70, True, False, torch.float32),
        (129, True, True, torch.float32),
        (70, False, True, torch.float32),
        (70, True, True, torch.float64),
        (70, False, False, torch.float64),
    ],
    ids=lambda value: str(value),
)
def test_panels(d: int, rows: bool, packed: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a large batch takes, with and without panels of rows, in chunks that have a part of N each."""
    from causalvae_fast.ops.sem_kl import triton_kernel

    panels = triton_kernel.panels_config(1000, d, dtype)
    assert panels is not None
    assert panels.rows is not None
    panels = panels if rows else panels._replace(rows=None)
    monkeypatch.setattr(triton_kernel, "panels_config", lambda *_: panels)
    monkeypatch.setattr(triton_kernel, "CHUNK", 1)
    inputs, upstream = sem_inputs(2, d, "full", dtype=dtype), upstream_gradient(2, dtype)
    expected, (grad_jac, *others) = true_sem_kl(inputs, upstream)
    given = inputs
    if packed:
        given = inputs._replace(jac=pack_tril(inputs.jac), factor=pack_tril(inputs.factor))
        grad_jac, others[3] = pack_tril(grad_jac), pack_tril(others[3])
    with tensor_core_products():
        value, found = kernel(given, upstream=upstream, wanted=ALL, packed_jac=packed, packed_scale_tril=packed)
    check_value(value, expected, inputs)
    check_gradients(found, (grad_jac, *others), inputs)


@each_meeting(d=EACH_KERNEL, posterior=POSTERIORS, jac=SHARING, offset=SHARING)
def test_each_gradient_alone(d: int, posterior: str, jac: str, offset: str) -> None:
    """Also without the memory of another gradient, which kernels may use."""
    inputs, upstream = sem_inputs(2, d, posterior, jac, offset), upstream_gradient(2, torch.float64)
    expected = true_sem_kl(inputs, upstream)[1]
    for k in range(5):
        wanted = [i == k for i in range(5)]
        found = kernel(inputs, upstream=upstream, wanted=wanted)[1]
        assert [g is not None for g in found] == wanted
        check_gradients(found, expected, inputs)


@each_posterior
@pytest.mark.parametrize("layout", [(True, False), (False, True), (True, True)], ids=["jac", "scale_tril", "both"])
@pytest.mark.parametrize("d", [1, *EACH_KERNEL])
def test_packed(d: int, layout: tuple[bool, bool], posterior: str) -> None:
    inputs, upstream = sem_inputs(2, d, posterior), upstream_gradient(2, torch.float64)
    packed_jac, packed_tril = layout[0], layout[1] and posterior == "full"
    expected, (grad_jac, *others) = true_sem_kl(inputs, upstream)
    packed = inputs
    if packed_jac:
        packed, grad_jac = packed._replace(jac=pack_tril(packed.jac)), pack_tril(grad_jac)
    if packed_tril:
        packed, others[3] = packed._replace(factor=pack_tril(packed.factor)), pack_tril(others[3])
    value, found = kernel(
        packed, upstream=upstream, wanted=ALL, packed_jac=packed_jac, packed_scale_tril=packed_tril
    )
    check_value(value, expected, inputs)
    check_gradients(found, (grad_jac, *others), inputs)


@pytest.mark.parametrize("d", EACH_KERNEL)
def test_packed_jac_that_the_batch_shares(d: int) -> None:
    for posterior in POSTERIORS:
        inputs, upstream = sem_inputs(3, d, posterior, "shared"), upstream_gradient(3, torch.float64)
        packed = inputs._replace(jac=pack_tril(inputs.jac))
        found = kernel(packed, upstream=upstream, wanted=ALL, packed_jac=True)[1]
        grad_jac, *others = true_sem_kl(inputs, upstream)[1]
        check_gradients(found, (pack_tril(grad_jac), *others), inputs)


@each_meeting(2, reduction=("mean", "sum"), d=EACH_KERNEL, posterior=POSTERIORS, jac=SHARING)
def test_reduction(reduction: str, d: int, posterior: str, jac: str) -> None:
    inputs = sem_inputs(3, d, posterior, jac)
    upstream = torch.full((3,), -1.5 / (3 if reduction == "mean" else 1), dtype=torch.float64)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    leaves = inputs.leaves()
    value = leaves.call(sem_kl, reduction=reduction)
    torch.testing.assert_close(value.detach(), getattr(expected, reduction)())
    check_gradients(torch.autograd.grad(-1.5 * value, leaves), expected_gradients, inputs)


@pytest.mark.parametrize("packed", [False, True])
def test_empty_batch(packed: bool) -> None:
    for posterior, jac in itertools.product(POSTERIORS, ("shared", "per_sample")):
        leaves = sem_inputs(0, 3, posterior, jac, "shared").leaves()
        if packed:
            leaves = leaves._replace(jac=pack_tril(leaves.jac).detach().requires_grad_())
        total = leaves.call(sem_kl, reduction="sum")
        assert total == 0
        assert leaves.call(sem_kl, reduction="mean").isnan()
        assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(total, leaves))


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [40, 70])
def test_float32_on_tensor_cores(d: int, jac: str, posterior: str) -> None:
    """In three passes, products are within the tolerance of float32; in one, where the user allowed it, they are
    not, which shows that the passes are what they are taken for.
    """
    inputs, upstream = sem_inputs(2, d, posterior, jac, dtype=torch.float32), upstream_gradient(2, torch.float32)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    used: set[str] = set()
    with tensor_core_products(used):
        value, found = kernel(inputs, upstream=upstream, wanted=ALL)
        check_value(value, expected, inputs)
        check_gradients(found, expected_gradients, inputs)
    assert used <= {"TF32x3"}
    if posterior == "full":
        assert used
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            with tensor_core_products():
                found = kernel(inputs, upstream=upstream, wanted=ALL)[1]
        finally:
            torch.set_float32_matmul_precision(before)
        assert found[4] is not None
        error = gradient_error(found[4], expected_gradients[4], batched=True)
        assert RELATIVE[torch.float32] < error < 1e-2


@each_posterior
@each_jac
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_two_runs_give_the_same_bits_whatever_the_layout(d: int, jac: str, posterior: str) -> None:
    """Upper triangles are not read; gaps, and batches that repeat one row, are taken as they are."""
    inputs, upstream = sem_inputs(2, d, posterior, jac, dtype=torch.float32), upstream_gradient(2, torch.float32)
    alone = value_and_gradients(inputs, upstream)
    upper = torch.ones(d, d, dtype=torch.bool).triu()
    poisoned = inputs._replace(jac=inputs.jac.masked_fill(upper, math.nan))
    if posterior == "full":
        poisoned = poisoned._replace(factor=inputs.factor.masked_fill(upper.triu(1), math.nan))
    gaps = poisoned.map(lambda t: torch.stack((t, torch.full_like(t, math.nan)), -1)[..., 0])
    assert same_bits(alone, value_and_gradients(gaps, upstream))
    row = SEMInputs(*(t[:1] if b else t for t, b in zip(inputs, inputs.batched, strict=True)))
    repeated = SEMInputs(*(t.expand(2, *t.shape[1:]) if b else t for t, b in zip(row, row.batched, strict=True)))
    copied = repeated.map(torch.Tensor.contiguous)
    assert same_bits(value_and_gradients(repeated, upstream), value_and_gradients(copied, upstream))


@each_posterior
@each_jac
@pytest.mark.parametrize("d", EACH_KERNEL)
def test_nan_stays_in_its_sample(d: int, jac: str, posterior: str) -> None:
    batch = 3 if d < 20 else 2  # that of several samples at a time has one on either side of it
    inputs, upstream = sem_inputs(batch, d, posterior, jac), upstream_gradient(batch, torch.float64)
    clean = value_and_gradients(inputs, upstream)
    others = [b for b in range(batch) if b != 1]
    for k in (3, 4):
        changed = [t.clone() for t in inputs]
        changed[k][(1, d - 1, 0)[: changed[k].dim()]] = math.nan
        value, *found = value_and_gradients(SEMInputs(*changed), upstream)
        assert value.isnan().nonzero().flatten().tolist() == [1]
        for own, gradient, before in zip(inputs.batched, found, clean[1:], strict=True):
            assert not own or torch.equal(gradient[others], before[others])


@each_jac
def test_chunks_of_a_large_batch(jac: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples whose matrices together exceed the cache are taken in parts."""
    from causalvae_fast.ops.sem_kl import triton_kernel

    inputs, upstream = sem_inputs(3, 70, "full", jac), upstream_gradient(3, torch.float64)
    monkeypatch.setattr(triton_kernel, "CHUNK", 2 * 70 * 70 * 8)
    value, found = kernel(inputs, upstream=upstream, wanted=ALL)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    check_value(value, expected, inputs)
    check_gradients(found, expected_gradients, inputs)


@pytest.mark.parametrize("d", EACH_KERNEL)
def test_several_samples_for_each_sum(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that the batch shares is summed up in parts of several samples."""
    from causalvae_fast.ops.sem_kl import triton_kernel

    monkeypatch.setattr(triton_kernel, "PROGRAMS", 2)
    for posterior in POSTERIORS:
        batch = 40 if d == 5 else 3
        inputs, upstream = sem_inputs(batch, d, posterior, "shared"), upstream_gradient(batch, torch.float64)
        found = kernel(inputs, upstream=upstream, wanted=ALL)[1]
        check_gradients(found, true_sem_kl(inputs, upstream)[1], inputs)


@pytest.mark.parametrize("packed", [(False, False), (True, True)], ids=["dense", "packed"])
def test_in_pytorch(packed: tuple[bool, bool]) -> None:
    inputs = sem_inputs(3, 4, "full")
    if packed[0]:
        inputs = inputs._replace(jac=pack_tril(inputs.jac), factor=pack_tril(inputs.factor))
    check_kernels(sem_kl_ops[packed], inputs, symbolic=False)


@each_posterior
@pytest.mark.parametrize("d", [5, 70])
def test_offsets_beyond_32_bits(d: int, posterior: str) -> None:
    """Samples 2^31 elements apart, in memory of which only what is used becomes real."""
    small = sem_inputs(2, d, posterior, dtype=torch.float32)
    try:
        memory = mmap.mmap(
            -1, 4 * (2**31 + d * d), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
        )  # NORESERVE
    except (OSError, ValueError):
        pytest.skip("the system does not lend 8 GiB of address space")
    far = torch.frombuffer(memory, dtype=torch.float32)
    jac = far.as_strided((2, d, d), (2**31, d, 1))
    jac.copy_(small.jac)
    expected = value_and_gradients(small, torch.ones(2))
    apart = small._replace(jac=jac)
    assert same_bits(kernel(apart)[0][None], [expected[0]])
    assert same_bits(kernel(apart, upstream=torch.ones(2), wanted=ALL)[1], expected[1:])


def test_too_many_latents() -> None:
    row = torch.zeros(1, 40_000)
    jac = row.new_zeros(1, 1).expand(40_000, 40_000)
    with pytest.raises(
        ValueError, match="loc must have at most 32768 latents for the backend 'triton', got 40000"
    ):
        kernel(SEMInputs(jac, row[0], row[0], row, row))


def test_gradients_go_through_the_backend_that_was_chosen() -> None:
    """Also in the backward pass, after the choice has ended."""
    inputs = sem_inputs(3, 4).map(torch.Tensor.float)
    calls: list[str] = []
    op = sem_kl_ops[False, False]
    backward = op.kernels["triton"].backward

    def counted(*args: object) -> object:
        calls.append("triton")
        return backward(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(op.kernels, "triton", op.kernels["triton"]._replace(backward=counted))
        gradients(op, inputs)
        value = op(*inputs.leaves())
        with cvf.use_backend("cpu"):
            value.sum().backward()
    assert calls == ["triton"] * 2
