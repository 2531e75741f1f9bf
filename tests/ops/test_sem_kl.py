"""The numbers of `sem_kl`: values and gradients of the kernels, on all shapes, layouts and instruction sets."""

import itertools
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mpmath
import pytest
import torch
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs, sem_kl_terms, true_sem_kl, upstream_gradient
from mpmath import mp
from tolerances import RELATIVE, gradient_error, value_error
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from causalvae_fast.ops import _native, sem_kl
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

ALL = (True,) * 5
ISAS = _native.cpu().isas()
BATCHES = (0, 1, 17)
SIZES = (1, 2, 3, 5, 16, 17, 33, 64, 100, 257)
ONE_PER_KERNEL = (5, 40)  # d for samples across lanes, and for one sample at a time

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
each_jac = pytest.mark.parametrize("jac", SHARING, ids=lambda sharing: f"jac_{sharing}")
each_offset = pytest.mark.parametrize("offset", SHARING, ids=lambda sharing: f"offset_{sharing}")
each_kernel = pytest.mark.parametrize("d", ONE_PER_KERNEL, ids=lambda d: f"d{d}")


def check_value(value: Tensor, expected: Tensor, inputs: SEMInputs, case: str = "") -> None:
    assert value.dtype == inputs.loc.dtype
    error = value_error(value, expected, sem_kl_terms(inputs))
    assert error <= RELATIVE[value.dtype], f"value {case}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor], inputs: SEMInputs, case: str = ""
) -> None:
    for name, gradient, truth, batched in zip(inputs._fields, gradients, expected, inputs.batched, strict=True):
        if gradient is None:
            continue
        assert gradient.dtype == inputs.loc.dtype
        error = gradient_error(gradient, truth, batched=batched)
        assert error <= RELATIVE[gradient.dtype], f"gradient of {name} {case}: {error:.1e}"


def value_and_gradients(inputs: SEMInputs, upstream: Tensor) -> list[Tensor]:
    """The public function and autograd, as a user calls them: the value, then the five gradients."""
    leaves = SEMInputs(*(t.detach().requires_grad_() for t in inputs))  # of the same layout
    value = leaves.call(sem_kl)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def same_bits(actual: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
    """Equal, NaN where the other is NaN."""
    return all(
        a is b or (a is not None and b is not None and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(actual, expected, strict=True)
    )


# Against the reference: every shape, instruction set and dtype.


@each_dtype
@each_offset
@each_jac
@each_posterior
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"B{batch}")
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_reference(d: int, batch: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(batch, d, posterior, jac, offset, dtype)
    upstream = upstream_gradient(batch, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for isa in ISAS:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, inputs, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)
        check_value(sem_kl_cpu(*inputs, isa=isa)[0], expected, inputs, f"{isa}, no gradient")


@each_dtype
@each_offset
@each_jac
@each_posterior
@each_kernel
def test_each_subset_of_gradients(d: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, offset, dtype)
    upstream = upstream_gradient(17, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for wanted in itertools.product((False, True), repeat=5):
        leaves = inputs.leaves(wanted)
        value = leaves.call(sem_kl)
        check_value(value.detach(), expected, inputs)
        assert value.requires_grad == any(wanted)
        if value.requires_grad:
            value.backward(upstream)
        gradients = [leaf.grad for leaf in leaves]
        assert [g is not None for g in gradients] == list(wanted)
        check_gradients(gradients, expected_gradients, inputs, str(wanted))


# Against an independent truth.


def textbook_kl(jac: Any, offset: Any, log_sigma: Any, loc: Any, L: Any) -> Any:
    """The KL from covariance matrices, in the precision of mpmath; matrices (d, d) and columns (d, 1)."""
    d = L.rows
    W = mp.matrix(d, d)
    for i in range(d):
        W[i, i] = 1
        for j in range(i):
            W[i, j] = -jac[i, j]
    inverse = W**-1
    noise = mp.diag([mp.exp(2 * log_sigma[i]) for i in range(d)])
    difference = inverse * offset - loc
    covariance_p, covariance_q = inverse * noise * inverse.T, L * L.T
    precision = covariance_p**-1
    product = precision * covariance_q
    trace = sum(product[i, i] for i in range(d))
    log_ratio = mp.log(mp.det(covariance_p)) - mp.log(mp.det(covariance_q))
    return (trace + (difference.T * precision * difference)[0] - d + log_ratio) / 2


def mp_inputs(inputs: SEMInputs, sample: int) -> list[Any]:
    """One sample's inputs as matrices of mpmath, L as a lower triangular matrix."""
    rows = [t[sample] if batched else t for t, batched in zip(inputs, inputs.batched, strict=True)]
    L = rows[4].diag() if rows[4].dim() == 1 else rows[4].tril()
    return [mp.matrix(t.tolist()) for t in (*rows[:4], L)]


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_values_against_mpmath(d: int, jac: str, posterior: str) -> None:
    inputs = sem_inputs(3, d, posterior, jac)
    with mp.workdps(50):
        expected = [float(textbook_kl(*mp_inputs(inputs, sample))) for sample in range(3)]
    check_value(inputs.call(sem_kl), torch.tensor(expected, dtype=torch.float64), inputs)


@each_posterior
def test_gradients_against_mpmath(posterior: str) -> None:
    """Every partial derivative of the textbook formula, by differences in 50 digits."""
    inputs = sem_inputs(1, 3, posterior)
    gradients = value_and_gradients(inputs, torch.ones(1, dtype=torch.float64))[1:]
    with mp.workdps(50):
        arguments = mp_inputs(inputs, 0)
        for k, gradient in enumerate(gradients):
            expected = torch.zeros_like(gradient)
            for index in itertools.product(*map(range, gradient.shape)):
                own = index[-gradient.dim() + inputs.batched[k] :]  # without the batch
                row, column = own if len(own) == 2 else (own[0], own[0] if k == 4 else 0)
                if (k == 0 and column >= row) or (k == 4 and column > row):
                    continue

                def partial(x: Any, k: int = k, row: int = row, column: int = column) -> Any:
                    changed = [matrix.copy() for matrix in arguments]
                    changed[k][row, column] = x
                    return textbook_kl(*changed)

                expected[index] = float(mpmath.diff(partial, arguments[k][row, column]))
            error = gradient_error(gradient, expected, batched=inputs.batched[k])
            assert error <= RELATIVE[torch.float64], f"gradient of {inputs._fields[k]}: {error:.1e}"


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [1, 2, 5, 16, 33])
def test_torch_distributions(d: int, jac: str, posterior: str) -> None:
    inputs = sem_inputs(17, d, posterior, jac)
    W = torch.eye(d, dtype=torch.float64) - inputs.jac.tril(-1)
    mean = torch.linalg.solve_triangular(W, inputs.offset.unsqueeze(-1), upper=False).squeeze(-1)
    noise = torch.exp(inputs.log_sigma).diag().expand_as(W)
    p = MultivariateNormal(mean, scale_tril=torch.linalg.solve_triangular(W, noise, upper=False))
    L = inputs.factor.diag_embed() if posterior == "diagonal" else inputs.factor.tril()
    expected = kl_divergence(MultivariateNormal(inputs.loc, scale_tril=L), p)
    check_value(inputs.call(sem_kl), expected, inputs)


@each_dtype
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_without_edges_it_is_the_kl_of_an_ordinary_vae(d: int, dtype: torch.dtype) -> None:
    loc, scale = sem_inputs(17, d, "diagonal", dtype=dtype)[3:]
    zeros = torch.zeros(d, dtype=dtype)
    inputs = SEMInputs(torch.zeros(d, d, dtype=dtype), zeros, zeros, loc, scale)
    q = Independent(Normal(loc.double(), scale.double()), 1)
    expected = kl_divergence(q, Independent(Normal(zeros.double(), torch.ones(d).double()), 1))
    check_value(inputs.call(sem_kl), expected, inputs)
    check_value(inputs._replace(factor=scale.diag_embed()).call(sem_kl), expected, inputs)


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


@each_dtype
@each_offset
@each_jac
@each_posterior
@each_kernel
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, d: int, posterior: str, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(17, d, posterior, jac, offset, dtype)
    arguments = (*inputs, upstream_gradient(17, dtype))
    for changed in [*({k} for k in range(6)), set(range(6))]:
        laid_out = [LAYOUTS[layout](t) if k in changed else t for k, t in enumerate(arguments)]
        compact = [t.contiguous() for t in laid_out]
        result = value_and_gradients(SEMInputs(*laid_out[:5]), laid_out[5])
        assert same_bits(result, value_and_gradients(SEMInputs(*compact[:5]), compact[5])), changed


@each_dtype
@each_jac
@each_posterior
@pytest.mark.parametrize("d", [1, 5, 17, 40, 64])
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


@each_dtype
@each_jac
@each_posterior
@each_kernel
@pytest.mark.parametrize("sample", [0, 9, 16])
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


@each_dtype
@each_jac
@each_posterior
@each_kernel
@pytest.mark.parametrize("scale", SCALES)
def test_scales_out_of_range(scale: str, d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    """NaN, infinity or a number where the reference in the same dtype has them."""
    number = 1e-310 if scale == "subnormal" and dtype == torch.float64 else SCALES[scale]
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    set_scale(inputs, number)
    expected, tolerance = sem_kl_reference(*inputs), RELATIVE[dtype]
    for isa in ISAS:
        value = sem_kl_cpu(*inputs, isa=isa)[0]
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance * d, equal_nan=True)


@each_dtype
@each_jac
@each_posterior
@each_kernel
def test_a_scale_whose_square_overflows(d: int, posterior: str, jac: str, dtype: torch.dtype) -> None:
    """Infinite, or NaN where infinity meets a coefficient of 0; nothing happens to other samples."""
    inputs = sem_inputs(17, d, posterior, jac, dtype=dtype)
    clean = [sem_kl_cpu(*inputs, isa=isa)[0] for isa in ISAS]
    set_scale(inputs, 1e30 if dtype == torch.float32 else 1e200)
    for isa, before in zip(ISAS, clean, strict=True):
        value = sem_kl_cpu(*inputs, isa=isa)[0]
        assert (~value.isfinite()).nonzero().flatten().tolist() == [9]
        assert torch.equal(value[OTHERS], before[OTHERS])


# Ill conditioned: a random W with entries of unit variance has an exponentially large inverse.


@each_dtype
@each_posterior
@each_jac
@pytest.mark.parametrize("d", [33, 64, 100, 257], ids=lambda d: f"d{d}")
def test_ill_conditioned(d: int, jac: str, posterior: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(3, d, posterior, jac, dtype=dtype, jac_std=1.0)
    upstream = upstream_gradient(3, dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    for isa in ISAS:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL, isa=isa)
        check_value(value, expected, inputs, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


def test_ill_conditioned_against_mpmath_where_the_textbook_formula_fails() -> None:
    d = 48
    rounded = sem_inputs(1, d, dtype=torch.float32, jac_std=1.0)
    with mp.workdps(50):
        expected = torch.tensor([float(textbook_kl(*mp_inputs(rounded, 0)))], dtype=torch.float64)
    for dtype in DTYPES:
        inputs = rounded.map(lambda t, dtype=dtype: t.to(dtype))  # type: ignore[misc]
        check_value(inputs.call(sem_kl), expected, inputs)

        jac, offset, log_sigma, loc, factor = inputs
        inverse = torch.linalg.inv(torch.eye(d, dtype=dtype) - jac[0].tril(-1))
        L, difference = factor[0].tril(), inverse @ offset[0] - loc[0]
        precision = torch.linalg.inv(inverse @ torch.exp(2 * log_sigma).diag() @ inverse.T)
        log_ratio = 2 * (log_sigma.sum() - L.diagonal().log().sum())
        trace = (precision @ L @ L.T).trace()
        textbook = (trace + difference @ precision @ difference - d + log_ratio) / 2
        assert not value_error(textbook[None], expected, sem_kl_terms(inputs)) < 1e-4


# Reductions.


@each_dtype
@each_posterior
@each_kernel
@pytest.mark.parametrize("batch", [1, 17])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduction(reduction: str, batch: int, d: int, posterior: str, dtype: torch.dtype) -> None:
    inputs = sem_inputs(batch, d, posterior, dtype=dtype)
    upstream = torch.full((batch,), -1.5 / (batch if reduction == "mean" else 1), dtype=dtype)
    expected, expected_gradients = true_sem_kl(inputs, upstream)
    leaves = inputs.leaves()
    value = leaves.call(sem_kl, reduction=reduction)
    terms = getattr(sem_kl_terms(inputs), reduction)()
    assert value.shape == ()
    assert value_error(value.detach(), getattr(expected, reduction)(), terms) <= RELATIVE[dtype]
    check_gradients(torch.autograd.grad(-1.5 * value, leaves), expected_gradients, inputs)


@each_posterior
@each_jac
def test_reduction_of_an_empty_batch(jac: str, posterior: str) -> None:
    leaves = sem_inputs(0, 3, posterior, jac, "shared").leaves()
    assert leaves.call(sem_kl).shape == (0,)
    assert leaves.call(sem_kl, reduction="mean").isnan()  # like Tensor.mean
    total = leaves.call(sem_kl, reduction="sum")
    assert total == 0
    assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(total, leaves))


# Threads and processes.


def large_inputs(posterior: str, jac: str, d: int) -> tuple[SEMInputs, Tensor]:
    """Enough work for four threads."""
    batch = 4_100_000 // d ** (2 if posterior == "diagonal" else 3)
    return sem_inputs(batch, d, posterior, jac, dtype=torch.float32), upstream_gradient(batch, torch.float32)


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [24, 64])
def test_number_of_threads(d: int, jac: str, posterior: str) -> None:
    inputs, upstream = large_inputs(posterior, jac, d)
    _, expected_gradients = true_sem_kl(inputs, upstream)
    alone = value_and_gradients(inputs, upstream)
    for threads in (2, 4):
        torch.set_num_threads(threads)
        several = value_and_gradients(inputs, upstream)
        check_gradients(several[1:], expected_gradients, inputs, f"{threads} threads")
        own = (True, *inputs.batched)
        assert same_bits(*zip(*(pair for pair, o in zip(zip(several, alone), own) if o)))  # noqa: B905
        assert same_bits(several, value_and_gradients(inputs, upstream)), "two runs differ"


def test_two_runs_give_the_same_bits() -> None:
    for posterior, jac, d in itertools.product(POSTERIORS, SHARING, ONE_PER_KERNEL):
        inputs, upstream = sem_inputs(17, d, posterior, jac), upstream_gradient(17, torch.float64)
        assert same_bits(value_and_gradients(inputs, upstream), value_and_gradients(inputs, upstream))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child() -> None:
    """The pool of threads of the parent does not exist in the child, which must not wait for it."""
    inputs, upstream = large_inputs("full", "per_sample", 64)
    torch.set_num_threads(2)
    expected = value_and_gradients(inputs, upstream)

    def child() -> None:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL)
        torch.set_num_threads(1)  # torch's own operations hang in a child whose parent used two
        assert same_bits([value, *gradients], expected)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=30)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode == 0


def test_calls_from_several_threads_at_once() -> None:
    cases = [large_inputs(*case) for case in itertools.product(POSTERIORS, SHARING, (24,))]
    expected = [value_and_gradients(*case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda case: value_and_gradients(*case), cases * 3))
    for result, alone in zip(results, expected * 3, strict=True):
        assert result[0].shape == alone[0].shape
        assert torch.equal(result[0], alone[0])
        assert torch.equal(result[4], alone[4])
