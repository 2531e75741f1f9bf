"""`propagate`: against the reference and independent truths, in PyTorch, on NaN and on wrong arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from checks import BATCHES, ISAS, ONE_PER_KERNEL, SIZES, each_dtype, each_jac, each_offset, same_bits
from covering import each_meeting
from fused_checks import check_in_pytorch, everything
from inputs import DTYPES, SHARING, upstream_gradient
from mpmath import mp
from tolerances import RELATIVE, gradient_error, value_error
from torch import Tensor
from torch.distributions import MultivariateNormal

from causalvae_fast.ops import propagate
from causalvae_fast.ops.propagate.autograd import propagate_op
from causalvae_fast.ops.propagate.cpu import propagate_backward_cpu, propagate_cpu
from causalvae_fast.ops.propagate.reference import propagate_reference


class Inputs(NamedTuple):
    jac: Tensor  # (B, d, d) or (d, d)
    offset: Tensor  # (B, d) or (d,)
    log_sigma: Tensor  # (d,)

    @property
    def batched(self) -> tuple[bool, ...]:
        """For each input, whether every sample has its own."""
        return self.jac.dim() == 3, self.offset.dim() == 2, False

    def double(self) -> Inputs:
        return Inputs(*(t.double() for t in self))


def make_inputs(
    batch: int,
    d: int,
    jac: str = "per_sample",
    offset: str = "per_sample",
    dtype: torch.dtype = torch.float64,
    jac_std: float | None = None,
) -> Inputs:
    """Well-conditioned, unless `jac_std` says otherwise. Where nothing may be read stand conspicuous numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A = (d**-0.5 if jac_std is None else jac_std) * normal(*(() if jac == "shared" else (batch,)), d, d)
    b = normal(*(() if offset == "shared" else (batch,)), d)
    tensors = A.tril(-1) + torch.full_like(A, 1e3).triu(), b, 0.5 * normal(d)
    return Inputs(*(t.to(dtype) for t in tensors))


def upstreams_of(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(upstream_gradient(t.numel(), t.dtype).reshape(t.shape) for t in outputs)


def terms(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """What errors of loc and scale_tril are relative to: the same recurrence over absolute values."""
    jac, offset, log_sigma = inputs.double()
    loc, scale_tril = propagate_reference(jac.tril(-1).abs(), offset.abs(), log_sigma)
    return loc, scale_tril + torch.ones_like(scale_tril).triu(1)


def check_values(outputs: Sequence[Tensor], expected: Sequence[Tensor], inputs: Inputs, case: str = "") -> None:
    for name, value, truth, unit in zip(("loc", "scale_tril"), outputs, expected, terms(inputs), strict=True):
        assert value.dtype == inputs.jac.dtype
        error = value_error(value, truth, unit)
        assert error <= RELATIVE[value.dtype], f"{name} {case}: {error:.1e}"
    assert outputs[1].triu(1).count_nonzero() == 0


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor], inputs: Inputs, case: str = ""
) -> None:
    for name, gradient, truth, batched in zip(inputs._fields, gradients, expected, inputs.batched, strict=True):
        if gradient is None:
            continue
        error = gradient_error(gradient, truth, batched=batched)
        assert error <= RELATIVE[gradient.dtype], f"gradient of {name} {case}: {error:.1e}"
        if name == "jac":
            assert gradient.triu().count_nonzero() == 0


def truth(inputs: Inputs) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The reference in float64: outputs, upstream gradients in the dtype of the inputs, gradients."""
    leaves = [t.double().clone().requires_grad_() for t in inputs]
    outputs = propagate_reference(*leaves)
    upstreams = tuple(u.to(inputs.jac.dtype) for u in upstreams_of(outputs))
    gradients = torch.autograd.grad(outputs, leaves, [u.double() for u in upstreams])
    return tuple(t.detach() for t in outputs), upstreams, gradients


# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, jac=SHARING, offset=SHARING, dtype=DTYPES)
def test_reference(d: int, batch: int, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(batch, d, jac, offset, dtype)
    expected, upstreams, expected_gradients = truth(inputs)
    for isa in ISAS:
        outputs = propagate_cpu(*inputs, isa=isa)
        check_values(outputs, expected, inputs, isa)
        gradients = propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


@each_meeting(d=ONE_PER_KERNEL, jac=SHARING, offset=SHARING, dtype=DTYPES)
def test_each_subset_of_gradients(d: int, jac: str, offset: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(17, d, jac, offset, dtype)
    _, upstreams, expected = truth(inputs)
    for wanted in itertools.product((False, True), repeat=3):
        leaves = [t.clone().requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
        outputs = propagate_op(*leaves)
        if any(wanted):
            torch.autograd.backward(outputs, upstreams)
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)
        check_gradients([leaf.grad for leaf in leaves], expected, inputs, str(wanted))


@pytest.mark.parametrize("d", [24, 64])
@each_jac
def test_number_of_threads(jac: str, d: int) -> None:
    """Enough work for four threads."""
    batch = 4_100_000 // d ** (3 if jac == "per_sample" else 2)
    inputs = make_inputs(batch, d, jac, dtype=torch.float32)
    expected, upstreams, expected_gradients = truth(inputs)
    for threads in (2, 4):
        torch.set_num_threads(threads)
        outputs = propagate_cpu(*inputs)
        check_values(outputs, expected, inputs)
        gradients = propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3)
        check_gradients(gradients, expected_gradients, inputs, f"{threads} threads")
        again = propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3)
        assert same_bits(gradients, again), "two runs differ"


def test_threads_that_share_one_matrix() -> None:
    inputs = make_inputs(1, 257, "shared", "shared", torch.float32)
    expected, upstreams, expected_gradients = truth(inputs)
    torch.set_num_threads(4)
    outputs = propagate_cpu(*inputs)
    check_values(outputs, expected, inputs)
    check_gradients(propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3), expected_gradients, inputs)


@each_dtype
@pytest.mark.parametrize("d", [40, 64])
def test_large_results_which_are_written_past_the_cache(d: int, dtype: torch.dtype) -> None:
    inputs = make_inputs((17 << 20) // (d * d * dtype.itemsize) + 1, d, dtype=dtype)
    expected, upstreams, expected_gradients = truth(inputs)
    for isa in ISAS:
        outputs = propagate_cpu(*inputs, isa=isa)
        check_values(outputs, expected, inputs, isa)
        gradients = propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


# Against independent truths.


def product_of_node_matrices(jac: Tensor) -> Tensor:
    """Theorem 2: W^-1 = A_d ... A_2, where A_i is the identity with row i's parents filled in."""
    d = jac.shape[-1]
    inverse = torch.eye(d, dtype=jac.dtype).expand_as(jac)
    for i in range(1, d):
        node = torch.eye(d, dtype=jac.dtype).expand_as(jac).clone()
        node[..., i, :i] = jac[..., i, :i]
        inverse = node @ inverse
    return inverse


@each_meeting(2, d=SIZES, jac=SHARING, offset=SHARING)
def test_product_of_node_matrices(d: int, jac: str, offset: str) -> None:
    inputs = make_inputs(3, d, jac, offset)
    inverse = product_of_node_matrices(inputs.jac)
    expected = (inverse @ inputs.offset.unsqueeze(-1)).squeeze(-1), inverse * inputs.log_sigma.exp()
    check_values(propagate_op(*inputs), expected, inputs)


@each_dtype
@each_jac
@pytest.mark.parametrize("d", [24, 48])
def test_ill_conditioned_against_mpmath(d: int, jac: str, dtype: torch.dtype) -> None:
    """Edges of unit variance, whose inverse is exponentially large, and scales over 12 nats."""
    inputs = make_inputs(1, d, jac, dtype=dtype, jac_std=1.0)
    inputs = inputs._replace(log_sigma=torch.linspace(-6, 6, d, dtype=dtype))
    with mp.workdps(50):
        A = mp.matrix((inputs.jac if jac == "shared" else inputs.jac[0]).tril(-1).tolist())
        inverse = (mp.eye(d) - A) ** -1
        loc = inverse * mp.matrix(inputs.offset[0].tolist())
        factor = inverse * mp.diag([mp.exp(x) for x in inputs.log_sigma.tolist()])
        expected = torch.tensor([[float(x) for x in loc]], dtype=torch.float64)
        rows = [[float(factor[i, j]) for j in range(d)] for i in range(d)]
    scale_tril = torch.tensor(rows, dtype=torch.float64).reshape(inputs.jac.shape)
    for isa in ISAS:
        check_values(propagate_cpu(*inputs, isa=isa), (expected, scale_tril), inputs, isa)


@each_dtype
@each_jac
@pytest.mark.parametrize("d", [33, 64], ids=lambda d: f"d{d}")
def test_ill_conditioned_gradients(d: int, jac: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(3, d, jac, dtype=dtype, jac_std=0.5)
    _, upstreams, expected_gradients = truth(inputs)
    outputs = propagate_cpu(*inputs)
    check_gradients(propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3), expected_gradients, inputs)


def test_samples_of_the_recurrence_have_this_distribution() -> None:
    """log p(z) = sum_i log N(z_i; (A z + b)_i, sigma_i^2)."""
    inputs = make_inputs(17, 5)
    loc, scale_tril = propagate(*inputs)
    z = torch.randn(17, 5, dtype=torch.float64)
    mean = (inputs.jac.tril(-1) @ z.unsqueeze(-1)).squeeze(-1) + inputs.offset
    expected = torch.distributions.Normal(mean, inputs.log_sigma.exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(MultivariateNormal(loc, scale_tril=scale_tril).log_prob(z), expected)


# In PyTorch.


@each_offset
@each_jac
def test_in_pytorch(jac: str, offset: str) -> None:
    """Symbolic shapes, which take seconds, where the outputs have a batch and where they have none."""
    check_in_pytorch(propagate_op, make_inputs(3, 4, jac, offset), symbolic=jac == offset)


@each_jac
def test_gradcheck_of_a_large_sample(jac: str) -> None:
    leaves = [t.requires_grad_() for t in make_inputs(2, 40, jac)]
    assert torch.autograd.gradcheck(propagate, tuple(leaves), fast_mode=True)


def test_an_output_that_was_changed_in_place_raises() -> None:
    loc, scale_tril = propagate(*(t.requires_grad_() for t in make_inputs(3, 4)))
    scale_tril.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loc.sum() + scale_tril.sum()).backward()


def test_one_output_alone() -> None:
    inputs = make_inputs(17, 5)
    for k in range(2):
        results = []
        for op in (propagate_op, propagate_reference):
            leaves = [t.clone().requires_grad_() for t in inputs]
            results.append(torch.autograd.grad(op(*leaves)[k].sum(), leaves, allow_unused=True))
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, torch.zeros_like(ours) if expected is None else expected)


def test_autocast() -> None:
    inputs = make_inputs(3, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = propagate(*inputs)
    assert same_bits(outputs, propagate(*(t.float() for t in inputs)))


# Shapes.


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@each_offset
@each_jac
def test_shapes(jac: str, offset: str, backend: str) -> None:
    batch = () if jac == offset == "shared" else (3,)
    loc, scale_tril = propagate(*make_inputs(3, 4, jac, offset), backend=backend)
    assert loc.shape == (*batch, 4)
    assert scale_tril.shape == (*batch, 4, 4)


def test_gradients_through_an_expanded_factor() -> None:
    leaves = [t.requires_grad_() for t in make_inputs(3, 4, "shared")]
    results = []
    for backend in ("cpu", "reference"):
        loc, scale_tril = propagate(*leaves, backend=backend)
        weights = torch.linspace(1, 2, 48, dtype=torch.float64).reshape(3, 4, 4)
        results.append(torch.autograd.grad((weights * scale_tril).sum() + loc.square().sum(), leaves))
    torch.testing.assert_close(*results)


@each_jac
def test_an_empty_batch(jac: str) -> None:
    leaves = [t.requires_grad_() for t in make_inputs(0, 3, jac)]
    loc, scale_tril = propagate(*leaves)
    assert loc.shape == (0, 3)
    assert scale_tril.shape == (0, 3, 3)
    gradients = torch.autograd.grad(loc.sum() + scale_tril.sum(), leaves)
    assert all(g.count_nonzero() == 0 for g in gradients)


# What may not be read, and NaN.


@each_dtype
@each_jac
@pytest.mark.parametrize("d", [1, 5, 17, 40, 64])
def test_what_stands_above_the_triangles_is_ignored(d: int, jac: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(17, d, jac, dtype=dtype)
    upper = torch.ones(d, d, dtype=torch.bool).triu()
    poisoned = inputs._replace(jac=inputs.jac.masked_fill(upper, math.nan))
    assert same_bits(everything(propagate_op, poisoned), everything(propagate_op, inputs))
    outputs = propagate_cpu(*inputs)
    upstreams = upstreams_of(outputs)
    above = upstreams[0], upstreams[1].masked_fill(upper.triu(1), math.nan)
    for isa in ISAS:
        expected = propagate_backward_cpu(upstreams, inputs, outputs, (True,) * 3, isa)
        assert same_bits(propagate_backward_cpu(above, inputs, outputs, (True,) * 3, isa), expected)


@each_meeting(
    sample=(0, 9, 16), number=(math.nan, math.inf), d=ONE_PER_KERNEL, offset=SHARING, jac=SHARING, dtype=DTYPES
)
def test_nan_stays_in_its_sample(
    sample: int, number: float, d: int, offset: str, jac: str, dtype: torch.dtype
) -> None:
    inputs = make_inputs(17, d, jac, offset, dtype=dtype)
    clean = everything(propagate_op, inputs)
    others = [b for b in range(17) if b != sample]
    batched = (inputs.batched[0] or inputs.batched[1], inputs.batched[0], *inputs.batched)
    for k in (0, 1):
        if not inputs.batched[k]:
            continue
        tensors = list(inputs)
        tensors[k] = tensors[k].clone()
        tensors[k][(sample, d - 1, 0)[: tensors[k].dim()]] = number
        found = everything(propagate_op, Inputs(*tensors))
        assert not found[0][sample].isfinite().all()
        assert found[1].triu(1).count_nonzero() == 0
        for now, before, own in zip(found, clean, batched, strict=True):
            if own:
                assert torch.equal(now[others], before[others])


@each_dtype
@each_jac
@pytest.mark.parametrize("d", [16, 33, 40, 64])
def test_a_node_that_overflows_spares_those_before_it(d: int, jac: str, dtype: torch.dtype) -> None:
    for node in (3, 8, 13):
        inputs = make_inputs(2, d, jac, "per_sample", dtype)
        inputs.jac[..., node, node - 1] = torch.finfo(dtype).max
        inputs.offset[..., node - 1] = 1e3
        expected = propagate_reference(*inputs)[0].isfinite()
        assert not expected.all()
        for isa in ISAS:
            found = propagate_cpu(*inputs, isa=isa)[0]
            assert torch.equal(found.isfinite()[:, : node + 1], expected[:, : node + 1]), isa


# Wrong arguments.


def ones(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "jac_vector": ({"jac": ones(3)}, r"jac must have shape \(B, d, d\) or \(d, d\), got \(3,\)"),
    "jac_not_square": ({"jac": ones(4, 3, 2)}, r"jac must have shape \(B, d, d\) or \(d, d\), got \(4, 3, 2\)"),
    "jac_no_latents": ({"jac": ones(0, 0)}, r"jac must have shape \(B, d, d\) or \(d, d\), got \(0, 0\)"),
    "offset_size": ({"offset": ones(4)}, r"offset must have shape \(3,\) or \(4, 3\), got \(4,\)"),
    "offset_batch": ({"offset": ones(2, 3)}, r"offset must have shape \(3,\) or \(4, 3\), got \(2, 3\)"),
    "offset_matrix": ({"jac": ones(3, 3), "offset": ones(2, 4)}, r"offset must have shape \(3,\) or \(2, 3\)"),
    "log_sigma_scalar": ({"log_sigma": ones()}, r"log_sigma must have shape \(3,\), got \(\)"),
    "log_sigma_batch": ({"log_sigma": ones(4, 3)}, r"log_sigma must have shape \(3,\), got \(4, 3\)"),
    "device": ({"offset": ones(3, device="meta")}, "offset is on meta, but jac is on cpu"),
    "backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'"),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "jac_list": ({"jac": [[0.0]]}, "jac must be a tensor, got list"),
    "jac_half": ({"jac": ones(4, 3, 3).half()}, "jac must be float32 or float64, got torch.float16"),
    "offset_dtype": ({"offset": ones(3).float()}, "offset has dtype torch.float32, but jac has torch.float64"),
    "log_sigma_none": ({"log_sigma": None}, "log_sigma must be a tensor, got NoneType"),
}


def call(**changes: Any) -> tuple[Tensor, Tensor]:
    return propagate(**(make_inputs(4, 3)._asdict() | changes))


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**changes)


def test_dtypes() -> None:
    for dtype in DTYPES:
        assert [t.dtype for t in propagate(*make_inputs(3, 4, dtype=dtype))] == [dtype, dtype]
