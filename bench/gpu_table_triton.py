"""The rows of the Triton ops in the model of the GPU kernels (gpu_model.py): cases, floors and predicted times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import gpu_count_triton as counting
from gpu_kept import Kept
from h100 import DRAM, FMA, TF32, Count, dram_of, seconds

HEADS = ("case", "compulsory, MB", "DRAM, times that", "L2, MB", "flops, times the exact", "floor, us")
HEADS += ("by DRAM and flops, us", "times the floor", "with L2, us", "times the floor", "launches")
SHAPES = ((16384, 5), (16384, 16), (1024, 64), (256, 128), (64, 256), (16, 512), (16384, 64))
PIVOT_SHAPES = ((1024, 32, 64),)


class Case(NamedTuple):
    """Of `sem_kl`."""

    posterior: str
    gradients: bool
    packed: bool

    def __str__(self) -> str:
        layout = ", packed" if self.packed else ""
        return f"{self.posterior}, {'value and gradients' if self.gradients else 'value'}{layout}"


CASES = [Case(p, g, k) for p in ("diagonal", "full") for g, k in ((False, False), (True, False), (True, True))]


def compulsory(case: Case, batch: int, d: int) -> int:
    """Bytes in float32: triangles of the inputs and vectors in, gradients out, whole unless they are packed."""
    below, size = d * (d - 1) // 2, d * (d + 1) // 2
    out = size if case.packed else d * d
    read = below + 2 * d + (size if case.posterior == "full" else d)
    written = 1 + ((out + 2 * d) + (out if case.posterior == "full" else d) if case.gradients else 0)
    return 4 * (batch * (read + written) + d + (d if case.gradients else 0))


def flops(case: Case, batch: int, d: int) -> int:
    """Of the exact triangular products: d^3 / 3 each, one for a value, three with gradients."""
    return batch * d**3 * (3 if case.gradients else 1) // 3 if case.posterior == "full" else 0


def _row(
    shape: str,
    words: str,
    least: float,
    exact: float,
    floor: float,
    counts: list[Count],
    times: float,
    dram: float | None = None,
    torch: tuple[float, float, int] = (0, 0, 0),
) -> str:
    """A row: `counts` are of a part of the batch, `times` as many make it. `torch`: bytes, flops and number of
    operations that are torch's.
    """
    dram = sum(dram_of(c, times) for c in counts) if dram is None else dram
    l2, executed = (times * sum(getattr(c, name) for c in counts) for name in ("l2", "flops"))
    by_torch = max(torch[0] / DRAM, torch[1] / FMA)
    model, cached = (sum(seconds(c, times, second_cache=x) for c in counts) + by_torch for x in (False, True))
    cells = [
        shape,
        words,
        f"{least / 1e6:.1f}",
        f"{(dram + torch[0]) / least:.2f}",
        f"{(l2 + torch[0]) / 1e6:.0f}",
    ]
    cells += [f"{(executed + torch[1]) / exact:.2f}" if exact else "-", f"{floor * 1e6:.1f}"]
    cells += [f"{x:.3g}" for x in (model * 1e6, model / floor, cached * 1e6, cached / floor)]
    return _line([*cells, str(len(counts) + torch[2])])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(shape: str) -> list[str]:
    return [_line([shape, *HEADS]), "|" + "---|" * (len(HEADS) + 1)]


def sem_kl(kept: Kept) -> Iterator[str]:
    """From the launches of one sample, or of a few. Where a batch has more launches, these take it in chunks."""
    yield from head("B x d")
    for batch, d in SHAPES:
        for case in CASES:
            samples = 64 if d <= 16 else 1  # programs take several small ones, which share sectors
            options = (case.posterior == "full", case.gradients, case.packed, batch, d, samples)
            counts = kept.counts(f"sem_kl {d}, {case}", lambda options=options: counting.sem_kl(*options))
            least, exact = compulsory(case, batch, d), flops(case, batch, d)
            floor = max(least / DRAM, 3 * exact / TF32)
            yield _row(f"{batch} x {d}", str(case), least, exact, floor, counts, batch / samples)


def mlp_sem_kl(kept: Kept, batch: int = 1024, d: int = 64, hidden: int = 16, part: int = 64) -> Iterator[str]:
    """From a `part` of the batch; what the batch shares is moved once."""
    yield from head("B x d x h")
    below = d * (d - 1) // 2
    for full, gradients in itertools.product((False, True), (False, True)):
        words = f"{'full' if full else 'diagonal'}, {'value and gradients' if gradients else 'value'}"
        options = (full, gradients, part, d, hidden)
        counts = kept.counts(
            f"mlp_sem_kl {d} x {hidden}, {words}", lambda options=options: counting.mlp_sem_kl(*options)
        )
        own = (d * (d + 1) // 2 if full else d) + 2 * d
        written = (d * d if full else d) + 2 * d if gradients else 0
        shared = below * (hidden + 1) + 2 * d * (hidden + 1)
        shared += d * d * (hidden + 1) + 2 * d * (hidden + 1) if gradients else 0
        least, times = 4 * (batch * (own + written + 1) + shared), batch // part
        exact = batch * hidden * d * (d - 1) * (6 if gradients else 2)
        exact += batch * d**3 * (3 if gradients else 1) // 3 if full else 0
        dram = times * (sum(c.dram for c in counts) - 4 * shared) + 4 * shared
        floor = max(least / DRAM, 3 * exact / TF32)
        yield _row(f"{batch} x {d} x {hidden}", words, least, exact, floor, counts, times, dram)


def pivot_kl(kept: Kept) -> Iterator[str]:
    """From one sample, or 32 with diagonal posteriors; and what torch's operations of a backward pass move, each
    its operands and its result.
    """
    yield from head("B x K x d")
    for (batch, pivots, d), full, reduce, gradients in itertools.product(
        PIVOT_SHAPES, (False, True), ("none", "min", "logsumexp"), (False, True)
    ):
        words = f"{'full' if full else 'diagonal'}, {reduce}, {'gradients' if gradients else 'value'}"
        shape = f"{batch} x {pivots} x {d}"
        options = (full, gradients, batch, pivots, d, reduce)
        found = kept.get(f"pivot_kl {shape}, {words}", lambda options=options: counting.pivot_kl(*options))
        counts = [Count(*c) for c in found[0]]
        torch = counting.pivot_kl_products(full, batch, pivots, d) if gradients else (0, 0, 0)
        shared = pivots * (d * (d - 1) // 2 + d) + d
        own = d * (d + 1) // 2 + d if full else 2 * d
        kept_out = {"none": pivots, "min": 3, "logsumexp": 2 if gradients else 1}[reduce]  # value, index, upstream
        least = 4 * (shared + batch * (own + kept_out))
        if gradients:
            least += 4 * (pivots * (d * d + d) + d + batch * (d * d + d if full else 2 * d))
        pairs = batch * (1 if reduce == "min" and gradients else pivots)
        vectors = pairs * d * d * ((7 if full else 3) if gradients else 1)
        products = pairs * d**3 / 3 if full and not (gradients and reduce != "logsumexp") else 0
        floor = max(least / DRAM, 3 * products / TF32, vectors / FMA)
        yield _row(shape, words, least, products + vectors, floor, counts, batch / found[1], torch=torch)
