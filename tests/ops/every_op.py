"""Calls of every op of the package, by its public function and autograd, that reach each of its kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from gaussian_inputs import COMBINATIONS, GaussianInputs, gaussian_case
from inputs import DTYPES, POSTERIORS, SHARING, SEMInputs, sem_inputs
from mlp_inputs import MLPInputs, mlp_inputs
from mlp_sem_kl_inputs import BATCHED, MLPSEMInputs, mlp_sem_inputs
from pivot_inputs import pivot_inputs
from torch import Tensor

from causalvae_fast.ops import (
    ancestral_sample,
    gaussian_kl,
    mlp_ancestral_sample,
    pack_tril,
    pivot_kl,
    propagate,
    sem_kl,
)
from causalvae_fast.ops.pivot_kl.cpu import REDUCTIONS
from causalvae_fast.ops.propagate.autograd import propagate_op

OPS = (
    "sem_kl",
    "mlp_sem_kl",
    "propagate",
    "gaussian_kl",
    "pivot_kl",
    "ancestral_sample",
    "mlp_ancestral_sample",
)
POWER = {"diagonal": 2, "full": 3, "packed": 3}  # of d, in the operations that a sample takes
# Samples across lanes, one sample in rows or tiles, and what only a full posterior has above 64.
SIZES = (16, 40, 72)

BatchSize = Callable[[int, int], int]  # (d, p): of samples that take d^p operations each
Drawn = TypeVar("Drawn", bound=tuple[Tensor, ...])
# So many different samples are drawn, which takes longer than what is tested; a larger batch repeats them.
DIFFERENT = 61


def two_threads_worth(d: int, power: int) -> int:
    """Enough for the kernels to use two threads (csrc/common/parallel.cpp), and not a multiple of anything."""
    return 2_200_000 // d**power + 3


def drawn(make: Callable[[int], Drawn], batched: Sequence[bool], batch: int) -> Drawn:
    """Inputs that `make` makes for fewer samples, repeated; of those that are `batched`."""
    inputs, repeated = make(min(batch, DIFFERENT)), torch.arange(batch) % DIFFERENT
    tensors = (t[repeated] if own else t for t, own in zip(inputs, batched, strict=True))
    return type(inputs)(*tensors)


class Case(NamedTuple):
    """A function of tensors, and the tensors; all of them get a gradient."""

    name: str
    function: Callable[..., Any]
    tensors: tuple[Tensor, ...]
    batched: tuple[bool, ...]  # whether each tensor has a row for each sample
    outputs_batched: bool = True  # the same of the outputs

    def __str__(self) -> str:
        return self.name

    @property
    def sizes(self) -> str:
        return ", ".join(str(tuple(t.shape)) for t in self.tensors)

    def run(self, ones: Tensor | None = None) -> list[Tensor]:
        """The outputs, and the gradients of their sum. With `ones`, at least as many as an output has elements,
        torch itself has nothing to compute.
        """
        leaves = [t.detach().requires_grad_() for t in self.tensors]
        outputs = _as_tuple(self.function(*leaves))
        differentiable = [o for o in outputs if o.is_floating_point()]
        if ones is None:
            ones = torch.ones(max(o.numel() for o in differentiable), dtype=self.tensors[0].dtype)
        upstreams = [ones[: o.numel()].view(o.shape) for o in differentiable]
        return [*(o.detach() for o in outputs), *torch.autograd.grad(differentiable, leaves, upstreams)]

    def owned(self, results: Sequence[Tensor]) -> list[tuple[bool, Tensor]]:
        """Each result of `run`, and whether its rows belong to samples, with no sum over the batch in it."""
        outputs = len(results) - len(self.tensors)
        return list(zip((self.outputs_batched,) * outputs + self.batched, results, strict=True))


def cases(
    op: str, dtype: torch.dtype, sizes: Sequence[int] = SIZES, batch_size: BatchSize = two_threads_worth
) -> Iterator[Case]:
    for d in sizes:
        yield from _CASES[op](d, dtype, batch_size)


def every_case(sizes: Sequence[int] = SIZES, dtypes: Sequence[torch.dtype] = DTYPES) -> list[Case]:
    return [case for op, dtype in itertools.product(OPS, dtypes) for case in cases(op, dtype, sizes)]


def _sem(
    d: int, power: int, posterior: str, jac: str, offset: str, dtype: torch.dtype, batch_size: BatchSize
) -> SEMInputs:
    batched = (jac == "per_sample", offset == "per_sample", False, True, True)
    return drawn(lambda n: sem_inputs(n, d, posterior, jac, offset, dtype), batched, batch_size(d, power))


def _sem_kl(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    for posterior, jac, reduction in itertools.product(POSTERIORS, SHARING, ("none", "mean")):
        inputs = _sem(d, POWER[posterior], posterior, jac, "per_sample", dtype, batch_size)

        def call(*tensors: Tensor, reduction: str = reduction) -> Tensor:
            return SEMInputs(*tensors).call(sem_kl, reduction=reduction)

        name = f"sem_kl-{posterior}-jac_{jac}-{reduction}-{d}"
        yield Case(name, call, inputs, inputs.batched, reduction == "none")
    for posterior in POSTERIORS:
        inputs = _sem(d, POWER[posterior], posterior, "per_sample", "per_sample", dtype, batch_size)
        packed = inputs._replace(jac=pack_tril(inputs.jac))
        if posterior == "full":
            packed = packed._replace(factor=pack_tril(inputs.factor))

        def call_packed(*tensors: Tensor, factor_name: str = inputs.factor_name) -> Tensor:
            return sem_kl(*tensors[:4], **{factor_name: tensors[4]})  # type: ignore[arg-type]

        yield Case(f"sem_kl-{posterior}-packed-{d}", call_packed, packed, inputs.batched)


def _mlp_sem_kl(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    kinds = (("diagonal", "none"), ("diagonal", "mean"), ("full", "none"), ("packed", "mean"))
    for posterior, reduction in kinds:

        def make(n: int, posterior: str = posterior) -> MLPSEMInputs:
            return mlp_sem_inputs(n, d, 3, posterior, dtype)

        def call(*tensors: Tensor, posterior: str = posterior, reduction: str = reduction) -> Tensor:
            return MLPSEMInputs(*tensors).call(posterior, reduction=reduction)

        inputs = drawn(make, BATCHED, batch_size(d, POWER[posterior]))
        name = f"mlp_sem_kl-{posterior}-{reduction}-{d}"
        yield Case(name, call, inputs.laid_out(posterior), BATCHED, reduction == "none")


def _propagate(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    for jac in SHARING:
        inputs = _sem(d, 2 if jac == "shared" else 3, "diagonal", jac, "per_sample", dtype, batch_size)
        # One factor for the batch is expanded by torch, whose backward pass sums over the batch: here it is not.
        function = propagate if jac == "per_sample" else propagate_op
        yield Case(f"propagate-jac_{jac}-{d}", function, inputs[:3], inputs.batched[:3], jac == "per_sample")


def _gaussian_kl(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    for given, shared in itertools.product(COMBINATIONS, ("nothing", "both")):
        case = gaussian_case(1, d, given, shared, dtype)

        def make(n: int, given: tuple[str, str] = given, shared: str = shared) -> GaussianInputs:
            return gaussian_case(n, d, given, shared, dtype).inputs

        def call(*tensors: Tensor, case: Any = case) -> Tensor:
            value = case.call(gaussian_kl, *tensors)
            assert isinstance(value, Tensor)
            return value

        batched = case.inputs.batched
        inputs = drawn(make, batched, batch_size(d, 3))
        yield Case(f"gaussian_kl-{'-'.join(given)}-{shared}-{d}", call, inputs, batched)


def _pivot_kl(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    pivots, batched = 5, (False, False, False, True, True)
    for posterior, reduce in itertools.product(POSTERIORS, REDUCTIONS):

        def make(n: int, posterior: str = posterior) -> SEMInputs:
            return pivot_inputs(n, pivots, d, posterior, dtype)

        def call(*tensors: Tensor, reduce: str = reduce) -> Any:
            inputs = SEMInputs(*tensors)
            return pivot_kl(*tensors[:4], **{inputs.factor_name: inputs.factor}, reduce=reduce)

        inputs = drawn(make, batched, batch_size(d, POWER[posterior]))
        yield Case(f"pivot_kl-{posterior}-{reduce}-{d}", call, inputs, batched)


def _ancestral_sample(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    for jac, kind in itertools.product(SHARING, ("linear", "quadratic")):
        inputs = _sem(d, 2, "diagonal", jac, "shared", dtype, batch_size)
        do_mask = torch.arange(d) % 5 == 2

        def call(noise: Tensor, jac: Tensor, offset: Tensor, values: Tensor, *quadratic: Tensor) -> Tensor:
            options = {"do_mask": do_mask, "do_values": values, "quadratic": quadratic[0] if quadratic else None}  # noqa: B023
            return ancestral_sample(noise, jac=jac, offset=offset, **options)  # type: ignore[arg-type]

        tensors = (inputs.loc, inputs.jac, inputs.offset, inputs.factor)
        batched = (True, jac == "per_sample", False, True)
        if kind == "quadratic":
            tensors, batched = (*tensors, 0.1 * d**-0.5 * inputs.jac), (*batched, jac == "per_sample")
        yield Case(f"ancestral_sample-{kind}-jac_{jac}-{d}", call, tensors, batched)


def _mlp_ancestral_sample(d: int, dtype: torch.dtype, batch_size: BatchSize) -> Iterator[Case]:
    for do in ("shared", "per_sample"):

        def make(n: int, do: str = do) -> MLPInputs:
            return mlp_inputs(n, d, 3, do, dtype)

        own = do == "per_sample"
        inputs = drawn(make, (True, *(False,) * 5, own, own), batch_size(d, 2))

        def call(*tensors: Tensor, do_mask: Tensor = inputs.do_mask) -> Tensor:
            return mlp_ancestral_sample(*tensors[:-1], do_mask=do_mask, do_values=tensors[-1])

        tensors = tuple(t for t in inputs if t is not inputs.do_mask)
        batched = (True, False, False, False, False, False, do == "per_sample")
        yield Case(f"mlp_ancestral_sample-do_{do}-{d}", call, tensors, batched)


_CASES: dict[str, Callable[[int, torch.dtype, BatchSize], Iterator[Case]]] = {
    "sem_kl": _sem_kl,
    "mlp_sem_kl": _mlp_sem_kl,
    "propagate": _propagate,
    "gaussian_kl": _gaussian_kl,
    "pivot_kl": _pivot_kl,
    "ancestral_sample": _ancestral_sample,
    "mlp_ancestral_sample": _mlp_ancestral_sample,
}


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
