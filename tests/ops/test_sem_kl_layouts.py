"""`sem_kl` on tensors of any layout and size, and on NaN, infinity and scales that are no scales."""

import math
from collections.abc import Callable

import torch
from checks import ALL, ISAS, ONE_PER_KERNEL, same_bits, value_and_gradients
from covering import each_meeting
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs, upstream_gradient
from tolerances import RELATIVE, gradient_error
from torch import Tensor

from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

# Layouts: the same bits as contiguous inputs give.

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "batch_innermost": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "every_second_element": lambda t: torch.stack((t, torch.full_like(t, math.nan)), -1)[..., 0],
    "every_second_row": lambda t: torch.stack((t, torch.full_like(t, math.nan)), 1)[:, 0],
    "misaligned": lambda t: torch.cat((t.new_full((1,), math.nan), t.flatten()))[1:].view_as(t),
    "expanded": lambda t: t[:1].expand_as(t),
    "one_number": lambda t: t.flatten()[0].expand_as(t),
}


@each_meeting(
    layout=list(LAYOUTS), d=ONE_PER_KERNEL, posterior=POSTERIORS, jac=SHARING, offset=SHARING, dtype=DTYPES
)
def test_layout(layout: str, d: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, offset, dtype)
    arguments = (*inputs, upstream_gradient(17, dtype))
    for changed in [*({k} for k in range(6)), set(range(6))]:
        laid_out = [LAYOUTS[layout](t) if k in changed else t for k, t in enumerate(arguments)]
        compact = [t.contiguous() for t in laid_out]
        result = value_and_gradients(SEMInputs(*laid_out[:5]), laid_out[5])
        assert same_bits(result, value_and_gradients(SEMInputs(*compact[:5]), compact[5])), changed


def chunks(inputs: SEMInputs, size: int) -> list[SEMInputs]:
    """The same samples in several calls."""
    parts = [t.split(size) if batched else None for t, batched in zip(inputs, inputs.batched, strict=True)]
    count = -(-len(inputs.loc) // size)
    return [
        SEMInputs(*(t if p is None else p[i] for t, p in zip(inputs, parts, strict=True))) for i in range(count)
    ]


@each_meeting(2, d=(40, 60, 64), posterior=POSTERIORS, dtype=DTYPES)
def test_large_results_which_are_written_past_the_cache(d: int, posterior: str, dtype: torch.dtype) -> None:
    """Gradients of 17 MiB are those of several smaller calls; the compiler may round them in another order."""
    batch = (17 << 20) // (d * d * dtype.itemsize) + 1
    inputs, upstream = sem_inputs(batch, d, posterior, dtype=dtype), torch.ones((), dtype=dtype)
    for isa in ISAS:
        value, large = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL, isa=isa)
        results = [sem_kl_cpu(*part, upstream=upstream, wanted=ALL, isa=isa) for part in chunks(inputs, 500)]
        assert torch.equal(value, torch.cat([v for v, _ in results]))
        for k, (gradient, batched) in enumerate(zip(large, inputs.batched, strict=True)):
            if batched:
                expected = torch.cat([gradients[k] for _, gradients in results])
                assert gradient_error(gradient, expected, batched=True) <= RELATIVE[dtype], isa


@each_meeting(d=(1, 5, 17, 40, 64), posterior=POSTERIORS, jac=SHARING, dtype=DTYPES)
def test_what_stands_above_the_triangles_is_ignored(d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    upper = torch.ones(d, d, dtype=torch.bool).triu()
    poisoned = inputs._replace(jac=inputs.jac.masked_fill(upper, math.nan))
    if posterior == "full":
        poisoned = poisoned._replace(factor=inputs.factor.masked_fill(upper.triu(1), math.nan))
    upstream = upstream_gradient(17, dtype)
    result = value_and_gradients(poisoned, upstream)
    assert same_bits(result, value_and_gradients(inputs, upstream))
    assert not torch.stack([t.isnan().any() for t in result]).any()
    assert result[1].triu().count_nonzero() == 0
    assert posterior == "diagonal" or result[5].triu(1).count_nonzero() == 0


# NaN, infinity and scales that are no scales.


@each_meeting(sample=(0, 9, 16), d=ONE_PER_KERNEL, posterior=POSTERIORS, jac=SHARING, dtype=DTYPES)
def test_nan_stays_in_its_sample(sample: int, d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    upstream = upstream_gradient(17, dtype)
    clean = value_and_gradients(inputs, upstream)
    others = [b for b in range(17) if b != sample]
    for k, batched in enumerate(inputs.batched):
        if not batched:
            continue
        arguments = [t.clone() for t in inputs]
        arguments[k][(sample, d - 1, 0)[: arguments[k].dim()]] = math.nan
        value, *gradients = value_and_gradients(SEMInputs(*arguments), upstream)
        assert value.isnan().nonzero().flatten().tolist() == [sample]
        assert torch.equal(value[others], clean[0][others])
        for own, gradient, before in zip(inputs.batched, gradients, clean[1:], strict=True):
            if own:
                assert torch.equal(gradient[others], before[others])
        assert gradients[3][sample].isnan().any() or gradients[4][sample].isnan().any()


OTHERS = [b for b in range(17) if b != 9]


def set_scale(inputs: SEMInputs, number: float) -> None:
    """Sets one standard deviation of sample 9."""
    factor = inputs.factor
    diagonal = factor if factor.dim() == 2 else factor.diagonal(dim1=-2, dim2=-1)
    diagonal[9, factor.shape[1] // 2] = number


SCALES = {"zero": 0.0, "negative": -0.5, "infinite": math.inf, "subnormal": 1e-40, "tiny": 1e-30}


@each_meeting(scale=list(SCALES), d=ONE_PER_KERNEL, posterior=POSTERIORS, jac=SHARING, dtype=DTYPES)
def test_scales_out_of_range(scale: str, d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    """NaN, infinity or a number where the reference in the same dtype has them."""
    number = 1e-310 if scale == "subnormal" and dtype == torch.float64 else SCALES[scale]
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    set_scale(inputs, number)
    expected, tolerance = sem_kl_reference(*inputs), RELATIVE[dtype]
    for isa in ISAS:
        value = sem_kl_cpu(*inputs, isa=isa)[0]
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance * d, equal_nan=True)


@each_meeting(d=ONE_PER_KERNEL, posterior=POSTERIORS, jac=SHARING, dtype=DTYPES)
def test_a_scale_whose_square_overflows(d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    """Infinite, or NaN where infinity meets a coefficient of 0; nothing happens to other samples."""
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    clean = [sem_kl_cpu(*inputs, isa=isa)[0] for isa in ISAS]
    set_scale(inputs, 1e30 if dtype == torch.float32 else 1e200)
    for isa, before in zip(ISAS, clean, strict=True):
        value = sem_kl_cpu(*inputs, isa=isa)[0]
        assert (~value.isfinite()).nonzero().flatten().tolist() == [9]
        assert torch.equal(value[OTHERS], before[OTHERS])
