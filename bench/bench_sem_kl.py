"""sem_kl against what people use: pytest bench/bench_sem_kl.py [-k "1024x64 and full"].

Groups are a shape, a posterior, a mode and a dtype. No contender is timed before its results agree with the
reference in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from interleave import ReplayTimer, interleave, make_row, write_rows
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from causalvae_fast.ops import sem_kl
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128), (16, 512))
SECONDS = 12.0  # for the contenders of a group together
OURS = "causalvae_fast"
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}  # of the gate: the textbook formula is not more accurate

replay = ReplayTimer()


class Group(NamedTuple):
    """Contenders of a group are compared with each other."""

    batch: int
    d: int
    posterior: str  # "full" or "diagonal"
    mode: str  # "forward" or "forward+backward"
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.batch}x{self.d}-{self.posterior}-{self.mode}-{str(self.dtype).removeprefix('torch.')}"


GROUPS = [
    Group(*shape, posterior, mode, dtype)
    for shape in SHAPES
    for posterior in ("full", "diagonal")
    for mode in ("forward", "forward+backward")
    for dtype in (torch.float32, torch.float64)
]


def make_inputs(group: Group) -> list[Tensor]:
    """jac (B, d, d), offset (B, d), log_sigma (d,), loc (B, d), and scale (B, d) or scale_tril (B, d, d)."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batch, d = group.batch, group.d
    scale = torch.exp(0.3 * normal(batch, d))
    factor = scale
    if group.posterior == "full":
        factor = (normal(batch, d, d) / d**0.5).tril(-1) + torch.diag_embed(scale)
    inputs = [normal(batch, d, d) / d**0.5, normal(batch, d), 0.3 * normal(d), normal(batch, d), factor]
    return [t.to(group.dtype) for t in inputs]


def sem_scale_tril(jac: Tensor, offset: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, d) and Cholesky factor (B, d, d) of the SEM's Gaussian, as torch.distributions needs them."""
    identity = torch.eye(jac.shape[-1], dtype=jac.dtype)
    inverse = torch.linalg.solve_triangular(
        identity - jac.tril(-1), identity.expand_as(jac), upper=False, unitriangular=True
    )
    return (inverse @ offset.unsqueeze(-1)).squeeze(-1), inverse * log_sigma.exp()


def distributions_scale_tril(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> Tensor:
    mean, scale_tril = sem_scale_tril(jac, offset, log_sigma)
    posterior = factor.tril() if factor.dim() == 3 else torch.diag_embed(factor)
    return kl_divergence(
        MultivariateNormal(loc, scale_tril=posterior), MultivariateNormal(mean, scale_tril=scale_tril)
    )


def distributions_covariance(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor
) -> Tensor:
    mean, scale_tril = sem_scale_tril(jac, offset, log_sigma)
    posterior = factor.tril() @ factor.tril().mT if factor.dim() == 3 else torch.diag_embed(factor.square())
    return kl_divergence(
        MultivariateNormal(loc, covariance_matrix=posterior),
        MultivariateNormal(mean, covariance_matrix=scale_tril @ scale_tril.mT),
    )


def ours(jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    name = "scale_tril" if factor.dim() == 3 else "scale"
    return sem_kl(jac, offset, log_sigma, loc, **{name: factor}, reduction="mean")


CONTENDERS: dict[str, Callable[..., Tensor]] = {
    OURS: ours,
    "torch.distributions, covariance": distributions_covariance,
    "torch.distributions, scale_tril": distributions_scale_tril,
    "formula, eager": sem_kl_reference,
    "formula, torch.compile": torch.compile(sem_kl_reference, dynamic=False),
}
KERNEL = "causalvae_fast, kernel call"
NAMES = (*CONTENDERS, KERNEL)


def check(name: str, group: Group, function: Callable[..., Tensor]) -> None:
    """The contender's value, and its gradients if they are timed, agree with the reference in float64."""
    grad = group.mode != "forward"
    inputs = [t.requires_grad_(grad) for t in make_inputs(group)]
    exact = [t.detach().double().requires_grad_(grad) for t in inputs]
    value, expected = function(*inputs).mean(), sem_kl_reference(*exact).mean()
    pairs = [(value, expected)]
    if grad:
        pairs += zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, exact), strict=True)
    for actual, wanted in pairs:
        error = (actual.double() - wanted).abs().max() / wanted.abs().max()
        if not error < TOLERANCE[group.dtype]:
            raise AssertionError(f"{name} is not timed: it is off by {error:.1e} on {group}")


def timed(group: Group, function: Callable[..., Tensor]) -> Callable[[], object]:
    """One step: the mean of the KL, and its gradients in fresh buffers if the mode wants them."""
    grad = group.mode != "forward"
    inputs = [t.requires_grad_(grad) for t in make_inputs(group)]

    def step() -> None:
        value = function(*inputs).mean()
        if grad:
            value.backward()
            for tensor in inputs:
                tensor.grad = None

    return step


def timed_kernel(group: Group) -> Callable[[], object]:
    """The bare call, without checks, choice of backend and autograd."""
    inputs = make_inputs(group)
    upstream = torch.full((), 1 / group.batch, dtype=group.dtype)
    wanted = [group.mode != "forward"] * len(inputs)
    return lambda: sem_kl_cpu(*inputs, upstream=upstream, wanted=wanted)


@pytest.fixture(scope="module")
def measured() -> Iterator[Callable[[Group], dict[str, list[float]]]]:
    """Times of a group, taken when its first contender asks; the rows of all groups are written at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    groups: dict[Group, dict[str, list[float]]] = {}

    def measure(group: Group) -> dict[str, list[float]]:
        if group not in groups:
            torch._dynamo.reset()
            for name, function in CONTENDERS.items():
                check(name, group, function)
            steps = {name: timed(group, function) for name, function in CONTENDERS.items()}
            groups[group] = interleave({**steps, KERNEL: timed_kernel(group)}, SECONDS)
        return groups[group]

    yield measure
    rows = [
        make_row(_key(group), name, times[name], times[OURS]) for group, times in groups.items() for name in NAMES
    ]
    print("\n" + ratios(rows))
    print(f"written to {write_rows('sem_kl', rows)}")
    torch.set_num_threads(threads)


def _key(group: Group) -> dict[str, Any]:
    return {**group._asdict(), "op": "sem_kl", "dtype": str(group.dtype).removeprefix("torch.")}


def ratios(rows: list[dict[str, Any]]) -> str:
    """Our median in ms, and how many times longer each contender took, a line for each group."""
    others = [name for name in NAMES if name != OURS]
    lines = [f"{'group':46}{'ours, ms':>10}  " + "  ".join(f"{name:>31}" for name in others)]
    for start in range(0, len(rows), len(NAMES)):
        group = {row["contender"]: row for row in rows[start : start + len(NAMES)]}
        first = group[OURS]
        name = f"{first['batch']} x {first['d']} {first['posterior']} {first['mode']} {first['dtype']}"
        lines.append(
            f"{name:46}{first['median_ms']:10.3f}  "
            + "  ".join(f"{group[other]['ratio_to_ours']:31.2f}" for other in others)
        )
    return "\n".join(lines)


@pytest.mark.parametrize("contender", NAMES)
@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.benchmark(timer=replay, warmup=False)
def test_sem_kl(benchmark: Any, measured: Any, group: Group, contender: str) -> None:
    durations = measured(group)[contender]
    benchmark.group = str(group)
    benchmark.extra_info.update(make_row(_key(group), contender, durations, durations))
    replay.load(durations)
    benchmark.pedantic(lambda: None, rounds=len(durations), iterations=1)
