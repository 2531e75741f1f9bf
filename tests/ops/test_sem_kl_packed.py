"""`sem_kl` with packed lower triangular matrices: the numbers of dense ones, and what PyTorch expects of it."""

import itertools
import math
from typing import Any

import pytest
import torch
from checks import ALL, BATCHES, ISAS, SIZES, check_gradients, check_value
from covering import each_meeting
from fused_checks import check_in_pytorch, fresh_compiler
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs, true_sem_kl, upstream_gradient
from torch import Tensor

from causalvae_fast.ops import pack_tril, sem_kl, unpack_tril
from causalvae_fast.ops.sem_kl.autograd import sem_kl_ops
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu

PACKED = [(True, False), (False, True), (True, True)]  # jac, scale_tril

each_packing = pytest.mark.parametrize(
    "packing", PACKED, ids=["packed_jac", "packed_scale_tril", "packed_jac_and_scale_tril"]
)


def packed(inputs: SEMInputs, packing: tuple[bool, bool]) -> SEMInputs:
    """The inputs with some matrices packed, and with NaN on the diagonal of jac, which may not be used."""
    jac, factor = inputs.jac, inputs.factor
    if packing[0]:
        jac = pack_tril(jac.tril(-1) + torch.full_like(jac, math.nan).diagonal(dim1=-2, dim2=-1).diag_embed())
    return inputs._replace(jac=jac, factor=pack_tril(factor) if packing[1] else factor)


def unpacked(gradients: list[Tensor | None], packing: tuple[bool, bool]) -> list[Tensor | None]:
    dense = list(gradients)
    for k, is_packed in ((0, packing[0]), (4, packing[1])):
        gradient = dense[k]
        if is_packed and gradient is not None:
            dense[k] = unpack_tril(gradient)
    return dense


KINDS = {  # posterior and packing
    "diagonal": ("diagonal", (True, False)),
    "full_jac": ("full", (True, False)),
    "full_scale_tril": ("full", (False, True)),
    "full_both": ("full", (True, True)),
}


@each_meeting(4, d=(*SIZES, 15, 31, 65), batch=BATCHES, kind=list(KINDS), jac=SHARING, dtype=DTYPES)
def test_reference(d: int, batch: int, kind: str, jac: str, dtype: torch.dtype) -> None:
    posterior, packing = KINDS[kind]
    inputs = sem_inputs(batch, d, posterior, jac, dtype=dtype)
    upstream = upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    options: dict[str, Any] = {"packed_jac": packing[0], "packed_scale_tril": packing[1]}
    for isa in ISAS:
        value, gradients = sem_kl_cpu(*packed(inputs, packing), upstream=upstream, wanted=ALL, isa=isa, **options)
        check_value(value, expected, inputs, isa)
        check_gradients(unpacked(gradients, packing), expected_gradients, inputs, isa)
        check_value(sem_kl_cpu(*packed(inputs, packing), isa=isa, **options)[0], expected, inputs, isa)


@each_meeting(2, d=(5, 12, 24, 40, 72), posterior=POSTERIORS, dtype=DTYPES)
def test_each_subset_of_gradients(d: int, posterior: str, dtype: torch.dtype) -> None:
    packing = (True, posterior == "full")
    inputs = sem_inputs(19, d, posterior, dtype=dtype)
    upstream = upstream_gradient(19, dtype)
    _, expected = true_sem_kl(inputs, upstream)
    options: dict[str, Any] = {"packed_jac": packing[0], "packed_scale_tril": packing[1]}
    for wanted in itertools.product((False, True), repeat=5):
        gradients = sem_kl_cpu(*packed(inputs, packing), upstream=upstream, wanted=wanted, **options)[1]
        assert [g is not None for g in gradients] == list(wanted)
        check_gradients(unpacked(gradients, packing), expected, inputs, str(wanted))


def test_large_gradients_written_past_the_cache() -> None:
    """Packed gradients of more than 16 MB, of samples that do not begin on a vector."""
    for d, batch, posterior in ((60, 2400, "full"), (60, 2400, "diagonal"), (130, 520, "full")):
        few = sem_inputs(47, d, posterior, dtype=torch.float32)
        repeated = torch.arange(batch) % 47  # it takes seconds to draw so many
        inputs = SEMInputs(*(t[repeated] if own else t for t, own in zip(few, few.batched, strict=True)))
        packing = (True, posterior == "full")
        upstream = torch.ones(batch)
        options: dict[str, Any] = {"packed_jac": packing[0], "packed_scale_tril": packing[1]}
        _, gradients = sem_kl_cpu(*packed(inputs, packing), upstream=upstream, wanted=ALL, **options)
        _, expected = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL)
        check_gradients(unpacked(gradients, packing), [g for g in expected if g is not None], inputs)


@each_packing
def test_in_pytorch(packing: tuple[bool, bool]) -> None:
    """One of them with a jac that the batch shares; all with one fake kernel, which symbolic shapes are about."""
    inputs = sem_inputs(3, 4, "full", "shared" if packing == (True, False) else "per_sample")
    check_in_pytorch(sem_kl_ops[packing], packed(inputs, packing), symbolic=packing == (True, True))


@each_meeting(batch=(1, 2, 5), d=(1, 2, 5), packing=PACKED, jac=SHARING)
def test_the_shapes_tell(batch: int, d: int, packing: tuple[bool, bool], jac: str) -> None:
    """Also where B equals d, or d (d + 1) / 2."""
    inputs = sem_inputs(batch, d, "full", jac, dtype=torch.float64)
    expected, expected_gradients = true_sem_kl(inputs, torch.ones(batch))
    leaves = packed(inputs, packing).leaves()
    total = sem_kl(*leaves[:4], scale_tril=leaves.factor, reduction="sum", validate_args=True)
    torch.testing.assert_close(total, expected.sum(), rtol=1e-12, atol=0)
    found = unpacked(list(torch.autograd.grad(total, leaves)), packing)
    check_gradients(found, expected_gradients, inputs)


LAYOUTS = {  # of jac and scale_tril
    "dense": lambda jac, factor: (jac, factor),
    "shared": lambda jac, factor: (jac[0].clone(), factor),
    "packed_jac": lambda jac, factor: (pack_tril(jac), factor),
    "packed_shared_jac": lambda jac, factor: (pack_tril(jac[0]), factor),
    "packed": lambda jac, factor: (pack_tril(jac), pack_tril(factor)),
}


class Layer(torch.nn.Module):
    def forward(self, jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
        return sem_kl(jac, offset, log_sigma, loc, scale_tril=factor)


def laid_out(layout: str, batch: int, d: int = 4) -> tuple[Tensor, ...]:
    jac, offset, log_sigma, loc, factor = sem_inputs(batch, d)
    jac, factor = LAYOUTS[layout](jac.tril(-1), factor.tril())
    return jac, offset, log_sigma, loc, factor


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced(layout: str) -> None:
    inputs = laid_out(layout, 3)
    traced = torch.jit.trace(lambda *tensors: Layer()(*tensors), inputs)
    torch.testing.assert_close(traced(*inputs), Layer()(*inputs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exported_for_any_batch(layout: str) -> None:
    """Also for B = d, and B = d (d + 1) / 2."""
    inputs = laid_out(layout, 3)
    batch = torch.export.Dim("B", min=2)
    dims = [{0: batch} if len(t) == 3 else None for t in inputs]
    exported = torch.export.export(Layer(), inputs, dynamic_shapes=dims).module()
    for size in (4, 7, 10):
        others = laid_out(layout, size)
        torch.testing.assert_close(exported(*others), Layer()(*others))


def test_compiled_with_dynamic_shapes() -> None:
    inputs = laid_out("packed", 3)

    def gradient(*tensors: Tensor) -> Tensor:
        return torch.func.grad(lambda loc: Layer()(*tensors[:3], loc, tensors[4]).sum())(tensors[3])

    with fresh_compiler():
        compiled = torch.compile(gradient, fullgraph=True, dynamic=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), gradient(*inputs))


def test_errors() -> None:
    jac, offset, log_sigma, loc, scale_tril = sem_inputs(3, 4)
    with pytest.raises(ValueError, match=r"jac must have shape .*\(3, 10\) or \(10,\), got \(3, 9\)"):
        sem_kl(torch.zeros(3, 9, dtype=loc.dtype), offset, log_sigma, loc, scale_tril=scale_tril)
    with pytest.raises(ValueError, match=r"jac must have shape .*, got \(2, 10\)"):
        sem_kl(pack_tril(jac[:2]), offset, log_sigma, loc, scale_tril=scale_tril)
    with pytest.raises(ValueError, match=r"scale_tril must have shape \(3, 4, 4\) or \(3, 10\), got \(3, 11\)"):
        sem_kl(jac, offset, log_sigma, loc, scale_tril=torch.zeros(3, 11, dtype=loc.dtype))
    negative = scale_tril.clone()
    negative[1, 2, 2] = -1
    with pytest.raises(ValueError, match=r"scale_tril must be above 0, got -1.0 for latent 2 of sample 1"):
        sem_kl(jac, offset, log_sigma, loc, scale_tril=pack_tril(negative), validate_args=True)


def test_pack_and_unpack() -> None:
    matrices = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    triangle = pack_tril(matrices)
    assert triangle.shape == (2, 3, 15)
    assert torch.equal(unpack_tril(triangle), matrices.tril())
    assert torch.equal(triangle[0, 0, :3], torch.stack([matrices[0, 0, 0, 0], *matrices[0, 0, 1, :2]]))
    assert torch.autograd.gradcheck(pack_tril, (matrices,))
    assert torch.autograd.gradcheck(unpack_tril, (triangle.detach().requires_grad_(),))
    assert unpack_tril(torch.tensor([True, False, True])).dtype == torch.bool
    for shape in ((2, 3), (0, 0), (3,)):
        with pytest.raises(ValueError, match=r"matrix must have shape \(\.\.\., d, d\)"):
            pack_tril(torch.zeros(shape))
    for wrong in ((4,), (0,), ()):
        with pytest.raises(ValueError, match=r"packed must have shape"):
            unpack_tril(torch.zeros(wrong))


def test_nan_stays_in_its_sample() -> None:
    for d in (5, 40, 80):
        inputs = packed(sem_inputs(5, d, "full", dtype=torch.float32), (True, True))
        inputs.factor[2, d] = math.nan
        value = sem_kl(*inputs[:4], scale_tril=inputs.factor)
        assert value.isnan().tolist() == [False, False, True, False, False]
