"""`ancestral_sample`: against the reference and independent truths, in PyTorch, on NaN and on wrong arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from checks import BATCHES, ISAS, ONE_PER_KERNEL, SIZES, each_dtype, each_jac, same_bits
from covering import each_meeting
from fused_checks import as_tuple, check_in_pytorch, everything
from inputs import DTYPES, SHARING, upstream_gradient
from mpmath import mp
from tolerances import RELATIVE, gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops import ancestral_sample
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.ancestral_sample.autograd import linear_op, quadratic_op
from causalvae_fast.ops.ancestral_sample.cpu import (
    linear_backward_cpu,
    linear_cpu,
    quadratic_backward_cpu,
    quadratic_cpu,
)

NAMES = {
    "linear": ("noise", "jac", "offset", "do_mask", "do_values"),
    "quadratic": ("noise", "jac", "quadratic", "offset", "do_mask", "do_values"),
}
OPS = {"linear": linear_op, "quadratic": quadratic_op}
KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "linear": (linear_cpu, linear_backward_cpu),
    "quadratic": (quadratic_cpu, quadratic_backward_cpu),
}
each_kind = pytest.mark.parametrize("kind", OPS)
INTERVENTIONS = ("none", *SHARING)


class Inputs(NamedTuple):
    """The tensors of one of the ops, in its order."""

    kind: str
    tensors: tuple[Tensor, ...]

    @property
    def op(self) -> FusedOp:
        return OPS[self.kind]

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[self.kind]

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    @property
    def batched(self) -> tuple[bool, ...]:
        """For each input, whether every sample has its own."""
        event = {"jac": 2, "quadratic": 2}
        return tuple(t.dim() > event.get(n, 1) for n, t in zip(self.names, self.tensors, strict=True))

    @property
    def differentiable(self) -> tuple[bool, ...]:
        return tuple(t.is_floating_point() for t in self.tensors)

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(self.kind, tuple(map(function, self.tensors)))

    def to(self, dtype: torch.dtype) -> Inputs:
        return self.map(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def replace(self, **changes: Tensor) -> Inputs:
        return Inputs(self.kind, tuple(changes.get(n, t) for n, t in zip(self.names, self.tensors, strict=True)))

    def named(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.tensors, strict=True))


def make_inputs(
    kind: str,
    batch: int,
    d: int,
    jac: str = "shared",
    do: str = "per_sample",
    dtype: torch.dtype = torch.float64,
    jac_std: float | None = None,
) -> Inputs:
    """Well-conditioned, unless `jac_std` says otherwise. Where nothing may be read stand conspicuous numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def matrix(std: float) -> Tensor:
        A = std * normal(*(() if jac == "shared" else (batch,)), d, d)
        return A.tril(-1) + torch.full_like(A, 1e3).triu()

    std = d**-0.5 if jac_std is None else jac_std
    own = (batch,) if do == "per_sample" else ()
    do_mask = torch.rand(*own, d, generator=generator) < (0 if do == "none" else 0.3)
    tensors = {
        "noise": normal(batch, d),
        "jac": matrix(std),
        "quadratic": matrix(0.2 * std / d**0.5),
        "offset": normal(d),
        "do_mask": do_mask,
        "do_values": normal(*own, d),
    }
    return Inputs(kind, tuple(tensors[name] for name in NAMES[kind])).to(dtype)


def terms(inputs: Inputs) -> Tensor:
    """What an error of z is relative to: the same recurrence over absolute values."""
    absolute = inputs.to(torch.float64).map(lambda t: t.abs() if t.is_floating_point() else t)
    return inputs.op.reference(*absolute.tensors)  # type: ignore[return-value]


def truth(inputs: Inputs) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The reference in float64: z, the upstream gradient in the dtype of the inputs, and a gradient for each."""
    copies = [t.detach().clone() for t in inputs.to(torch.float64).tensors]
    leaves = [t.requires_grad_() for t in copies if t.is_floating_point()]
    z = inputs.op.reference(*copies)
    assert isinstance(z, Tensor)
    upstream = upstream_gradient(z.numel(), inputs.dtype).reshape(z.shape)
    found = iter(torch.autograd.grad(z, leaves, upstream.double(), materialize_grads=True))
    return z.detach(), upstream, tuple(next(found) if t.is_floating_point() else None for t in copies)


def check_value(z: Tensor, expected: Tensor, inputs: Inputs, case: str = "") -> None:
    assert z.dtype == inputs.dtype
    error = value_error(z, expected, terms(inputs))
    assert error <= RELATIVE[z.dtype], f"{case}: {error:.1e}"


def check_gradients(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor | None], inputs: Inputs, case: str = ""
) -> None:
    found = dict(zip(inputs.names, gradients, strict=True))
    truths = dict(zip(inputs.names, expected, strict=True))
    own = dict(zip(inputs.names, inputs.batched, strict=True))
    mask = inputs.named()["do_mask"].expand_as(inputs.tensors[0])
    noise, values = found["noise"], found["do_values"]
    if noise is not None:
        assert noise[mask].count_nonzero() == 0
    if values is not None and own["do_values"]:
        assert values[~mask].count_nonzero() == 0
        if noise is not None:
            # Together they are the gradient of z, whose largest element is what an error is relative to.
            found["do_values"] = noise + values
            truths["do_values"] = truths["noise"] + truths["do_values"]
            del found["noise"]
    for name, gradient in found.items():
        known = truths[name]
        if gradient is None or known is None:
            continue
        error = gradient_error(gradient, known, batched=own[name])
        assert error <= RELATIVE[gradient.dtype], f"gradient of {name} {case}: {error:.1e}"
        if name in ("jac", "quadratic"):
            assert gradient.triu().count_nonzero() == 0


# Against the reference: every shape, instruction set and dtype.


@each_meeting(4, d=SIZES, batch=BATCHES, kind=list(OPS), jac=SHARING, do=INTERVENTIONS, dtype=DTYPES)
def test_reference(d: int, batch: int, kind: str, jac: str, do: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(kind, batch, d, jac, do, dtype)
    expected, upstream, expected_gradients = truth(inputs)
    forward, backward = KERNELS[kind]
    for isa in ISAS:
        (z,) = forward(*inputs.tensors, isa=isa)
        check_value(z, expected, inputs, isa)
        gradients = backward((upstream,), inputs.tensors, (z,), inputs.differentiable, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


@each_meeting(batch=(16, 31, 32, 33, 3000), kind=list(OPS), jac=SHARING, d=ONE_PER_KERNEL)
def test_sizes_of_the_batch(batch: int, kind: str, jac: str, d: int) -> None:
    inputs = make_inputs(kind, batch, d, jac, dtype=torch.float32)
    expected, upstream, expected_gradients = truth(inputs)
    for isa in ISAS:
        (z,) = KERNELS[kind][0](*inputs.tensors, isa=isa)
        check_value(z, expected, inputs, isa)
        gradients = KERNELS[kind][1]((upstream,), inputs.tensors, (z,), inputs.differentiable, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


@each_meeting(2, d=(40, 64), kind=list(OPS), dtype=DTYPES)
def test_large_results_which_are_written_past_the_cache(d: int, kind: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(kind, (17 << 20) // (d * d * dtype.itemsize) + 1, d, "per_sample", dtype=dtype)
    _, upstream, expected_gradients = truth(inputs)
    for isa in ISAS:
        (z,) = KERNELS[kind][0](*inputs.tensors, isa=isa)
        gradients = KERNELS[kind][1]((upstream,), inputs.tensors, (z,), inputs.differentiable, isa)
        check_gradients(gradients, expected_gradients, inputs, isa)


@each_jac
@each_kind
def test_each_subset_of_gradients(kind: str, jac: str) -> None:
    inputs = make_inputs(kind, 17, 5, jac)
    _, upstream, expected = truth(inputs)
    for wanted in itertools.product((False, True), repeat=len(inputs.tensors)):
        asked = [w and f for w, f in zip(wanted, inputs.differentiable, strict=True)]
        leaves = [t.detach().clone().requires_grad_(a) for t, a in zip(inputs.tensors, asked, strict=True)]
        z = inputs.op(*leaves)
        if any(asked):
            z.backward(upstream)
        assert [leaf.grad is not None for leaf in leaves] == asked
        check_gradients([leaf.grad for leaf in leaves], expected, inputs, str(asked))


@each_jac
@each_kind
def test_number_of_threads(kind: str, jac: str) -> None:
    """Enough work for four threads."""
    inputs = make_inputs(kind, 4_100_000 // 64**2, 64, jac, dtype=torch.float32)
    expected, upstream, expected_gradients = truth(inputs)
    forward, backward = KERNELS[kind]
    for threads in (2, 4):
        torch.set_num_threads(threads)
        (z,) = forward(*inputs.tensors)
        check_value(z, expected, inputs)
        gradients = backward((upstream,), inputs.tensors, (z,), inputs.differentiable)
        check_gradients(gradients, expected_gradients, inputs, f"{threads} threads")
        again = backward((upstream,), inputs.tensors, (z,), inputs.differentiable)
        assert same_bits(gradients, again), "two runs differ"


# Against independent truths.


@each_jac
@pytest.mark.parametrize("d", SIZES, ids=lambda d: f"d{d}")
def test_linear_mechanisms_are_one_triangular_solve(d: int, jac: str) -> None:
    inputs = make_inputs("linear", 17, d, jac, "none")
    W = torch.eye(d, dtype=torch.float64) - inputs.named()["jac"].tril(-1)
    right = (inputs.named()["noise"] + inputs.named()["offset"]).unsqueeze(-1)
    expected = torch.linalg.solve_triangular(W, right, upper=False).squeeze(-1)
    check_value(linear_op(*inputs.tensors), expected, inputs)


@each_dtype
@each_kind
@pytest.mark.parametrize("jac_std", [0.3, 1.0])
def test_recurrence_against_mpmath(jac_std: float, kind: str, dtype: torch.dtype) -> None:
    """With edges of unit variance values grow exponentially, and squares of them doubly so."""
    d = 48 if kind == "linear" else 16
    inputs = make_inputs(kind, 2, d, dtype=dtype, jac_std=jac_std)
    given = {name: t.tolist() for name, t in inputs.named().items()}
    expected = torch.empty(2, d, dtype=torch.float64)
    with mp.workdps(50):
        for n in range(2):
            z: list[Any] = []
            for i in range(d):
                own = mp.mpf(given["offset"][i]) + mp.mpf(given["noise"][n][i])
                for j in range(i):
                    own += mp.mpf(given["jac"][i][j]) * z[j]
                    if kind == "quadratic":
                        own += mp.mpf(given["quadratic"][i][j]) * z[j] ** 2
                z.append(mp.mpf(given["do_values"][n][i]) if given["do_mask"][n][i] else own)
            expected[n] = torch.tensor([float(x) for x in z], dtype=torch.float64)
    for isa in ISAS:
        check_value(KERNELS[kind][0](*inputs.tensors, isa=isa)[0], expected, inputs, isa)


@each_jac
@each_kind
def test_interventions(kind: str, jac: str) -> None:
    """A replaced node has its value; nodes before it do not notice; its equation and noise play no part."""
    inputs = make_inputs(kind, 17, 6, jac, "shared")
    values = torch.linspace(-1, 1, 6, dtype=torch.float64)
    without = inputs.op(*inputs.replace(do_mask=torch.zeros(6, dtype=torch.bool)).tensors)
    for node in range(6):
        mask = torch.arange(6) == node
        changed = inputs.replace(do_mask=mask, do_values=values.masked_fill(~mask, math.nan))
        changed = changed.replace(noise=changed.named()["noise"].masked_fill(mask, math.nan))
        leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in changed.tensors]
        z = inputs.op(*leaves)
        assert (z[:, node] == values[node]).all()
        assert torch.equal(z[:, :node], without[:, :node])
        assert not z.isnan().any()
        gradients = dict(zip(inputs.names, torch.autograd.grad(z.sum(), _floating(leaves)), strict=False))
        del gradients["do_mask"]  # names of the others follow each other without it
        assert gradients["noise"][:, node].count_nonzero() == 0
        assert gradients["jac"][..., node, :].count_nonzero() == 0


def _floating(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point()]


# In PyTorch.


@each_meeting(2, kind=list(OPS), do=SHARING, jac=SHARING)
def test_in_pytorch(kind: str, do: str, jac: str) -> None:
    """Symbolic shapes, which take seconds, of one for each kind."""
    inputs = make_inputs(kind, 3, 4, jac, do)
    check_in_pytorch(inputs.op, inputs.tensors, symbolic=do == "per_sample")


@each_kind
def test_gradcheck_of_a_large_sample(kind: str) -> None:
    inputs = make_inputs(kind, 2, 40, "per_sample")
    tensors = tuple(t.requires_grad_(t.is_floating_point()) for t in inputs.tensors)
    assert torch.autograd.gradcheck(inputs.op, tensors, fast_mode=True)


def test_defaults_of_the_public_function() -> None:
    inputs = make_inputs("quadratic", 17, 5, do="none").named()
    noise, jac, quadratic = inputs["noise"], inputs["jac"], inputs["quadratic"]
    zeros, no = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.bool)
    assert torch.equal(ancestral_sample(noise, jac=jac), linear_op(noise, jac, zeros, no, zeros))
    expected = quadratic_op(noise, jac, quadratic, zeros, no, zeros)
    assert torch.equal(ancestral_sample(noise, jac=jac, quadratic=quadratic), expected)


def test_autocast() -> None:
    noise, jac = torch.randn(3, 4).bfloat16(), torch.randn(4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = ancestral_sample(noise, jac=jac)
    assert torch.equal(z, ancestral_sample(noise.float(), jac=jac.float()))


# What may not be read, and NaN.


@each_jac
@each_kind
@pytest.mark.parametrize("d", [1, 5, 17, 40])
def test_what_stands_above_the_triangles_is_ignored(d: int, kind: str, jac: str) -> None:
    inputs = make_inputs(kind, 17, d, jac)
    upper = torch.ones(d, d, dtype=torch.bool).triu()
    poisoned = inputs.replace(
        **{n: t.masked_fill(upper, math.nan) for n, t in inputs.named().items() if n in ("jac", "quadratic")}
    )
    assert same_bits(everything(inputs.op, poisoned.tensors), everything(inputs.op, inputs.tensors))


@each_meeting(
    sample=(0, 9, 16), number=(math.nan, math.inf), d=ONE_PER_KERNEL, kind=list(OPS), jac=SHARING, dtype=DTYPES
)
def test_nan_stays_in_its_sample(
    sample: int, number: float, d: int, kind: str, jac: str, dtype: torch.dtype
) -> None:
    inputs = make_inputs(kind, 17, d, jac, dtype=dtype)
    inputs.named()["do_mask"][:, 0] = False
    inputs.named()["do_mask"][:, 1] = True
    clean = everything(inputs.op, inputs.tensors)
    others = [b for b in range(17) if b != sample]
    kept = [f for f, own in zip(inputs.differentiable, inputs.batched, strict=True) if f or own]
    assert kept
    for name, node in (("noise", 0), ("do_values", 1)):
        spoilt = inputs.named()[name].clone()
        spoilt[sample, node] = number
        found = everything(inputs.op, inputs.replace(**{name: spoilt}).tensors)
        assert not found[0][sample].isfinite().all()
        batched = (True, *(b for b, f in zip(inputs.batched, inputs.differentiable, strict=True) if f))
        for after, before, own in zip(found, clean, batched, strict=True):
            if own:
                assert torch.equal(after[others], before[others])


# Wrong arguments.


def ones(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "noise_vector": ({"noise": ones(3)}, r"noise must have shape \(B, d\), got \(3,\)"),
    "jac_size": ({"jac": ones(2, 2)}, r"jac must have shape \(4, 3, 3\) or \(3, 3\), got \(2, 2\)"),
    "quadratic_size": ({"quadratic": ones(4, 3, 3)}, r"quadratic must have shape \(3, 3\), got \(4, 3, 3\)"),
    "offset_size": ({"offset": ones(4, 3)}, r"offset must have shape \(3,\), got \(4, 3\)"),
    "mask_size": ({"do_mask": ones(4).bool()}, r"do_mask must have shape \(4, 3\) or \(3,\), got \(4,\)"),
    "mask_device": ({"do_mask": ones(3, device="meta").bool()}, "do_mask is on meta, but noise is on cpu"),
    "values_size": ({"do_values": ones()}, r"do_values must have shape \(4, 3\) or \(3,\), got \(\)"),
    "values_missing": ({"do_values": None}, "give both or neither of do_mask and do_values, got only do_mask"),
    "mask_missing": ({"do_mask": None}, "give both or neither of do_mask and do_values, got only do_values"),
    "device": ({"jac": ones(3, 3, device="meta")}, "jac is on meta, but noise is on cpu"),
    "backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'"),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "jac_none": ({"jac": None}, "jac must be a tensor, got NoneType"),
    "noise_integer": ({"noise": ones(4, 3).long()}, "noise must be float32 or float64, got torch.int64"),
    "quadratic_dtype": ({"quadratic": ones(3, 3).float()}, "quadratic has dtype torch.float32, but noise has"),
    "mask_list": ({"do_mask": [True]}, "do_mask must be a tensor, got list"),
    "mask_numbers": ({"do_mask": ones(3)}, "do_mask must be dense and torch.bool, got .* torch.float64"),
    "values_dtype": ({"do_values": ones(3).float()}, "do_values has dtype torch.float32"),
}


def call(**changes: Any) -> Tensor:
    return ancestral_sample(**(make_inputs("quadratic", 4, 3).named() | changes))


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**changes)


def test_dtypes() -> None:
    for kind, dtype in itertools.product(OPS, DTYPES):
        inputs = make_inputs(kind, 3, 4, dtype=dtype)
        assert [t.dtype for t in as_tuple(inputs.op(*inputs.tensors))] == [dtype]
