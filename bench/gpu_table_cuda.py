"""The rows of the CUDA ops in the model of the GPU kernels (gpu_model.py): cases, floors and predicted times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import h100
from gpu_count_cuda import Call, Launch

HEADS = ("B x d", "case", "compulsory, MB", "DRAM, times that", "L2, MB", "bank conflicts", "floor, us")
HEADS += ("by DRAM and flops, us", "times the floor", "with L2 and shared memory, us", "times the floor")
HEADS += ("with the longest chain, us", "launches")


class Case(NamedTuple):
    """A row: a call, in words, with what it must move and compute."""

    call: Call
    words: str
    elements: int  # of float32, in and out
    flops: float

    @property
    def shape(self) -> str:
        sizes = [self.call.batch, self.call.d, *([self.call.hidden] if self.call.hidden else [])]
        return " x ".join(map(str, sizes))

    @property
    def floor(self) -> float:
        """Seconds, of memory or of float32 multiply-adds."""
        return max(4 * self.elements / h100.DRAM, self.flops / h100.FMA)


def alike(d: int) -> tuple[int, ...]:
    """Samples that are run: blocks of small ones have several."""
    return (64, 128) if d <= 32 else (8, 16) if d <= 64 else (2, 4) if d <= 128 else (1, 2)


def propagate() -> Iterator[Case]:
    """A jac for each sample; and a shared one."""
    everything = ("jac", "offset", "log_sigma")
    for batch, d in ((1024, 16), (1024, 64), (256, 128), (16, 512)):
        below, size, square = d * (d - 1) // 2, d * (d + 1) // 2, d * d
        call = Call("propagate", "forward", batch, d, alike=alike(d))
        yield Case(call, "forward", batch * (below + 2 * d + square) + d, batch * d**3 / 3)
        back = call._replace(direction="backward")
        read = batch * (below + 2 * size + 2 * d) + d
        yield Case(
            back._replace(options=everything), "backward", read + batch * (square + d) + d, 2 * batch * d**3 / 3
        )
        yield Case(
            back._replace(options=("offset",)), "backward, offset alone", batch * (below + 2 * d), batch * d * d
        )
    batch, d = 1024, 64
    below, size, square = d * (d - 1) // 2, d * (d + 1) // 2, d * d
    call = Call("propagate", "forward", batch, d, options=("shared_jac",))
    yield Case(call, "shared jac, forward", below + square + d + 2 * batch * d, d**3 / 3 + batch * d * d)
    back = call._replace(direction="backward", options=("shared_jac", *everything))
    elements = below + 2 * size + square + 2 * d + 3 * batch * d
    yield Case(back, "shared jac, backward", elements, 2 * d**3 / 3 + 2 * batch * d * d)


def gaussian_kl() -> Iterator[Case]:
    """Both given by factors, or by covariance matrices. Samples share nothing, so one batch is enough."""
    for batch, d in ((1024, 16), (1024, 64), (256, 128), (16, 512)):
        size, square = d * (d + 1) // 2, d * d
        for given, value, gradients in (("factors", 1, 3), ("covariances", 3, 11)):
            if given == "covariances" and d == 512:
                continue  # takes the CPU half an hour
            call = Call("gaussian_kl", "forward", batch, d, options=(given,), alike=alike(d)[:1])
            read = batch * 2 * (size + d)
            yield Case(call, f"{given}, value", read + batch, value * batch * d**3 / 3)
            elements = read + batch * (2 + 2 * (square + d))
            back = call._replace(direction="backward")
            yield Case(back, f"{given}, gradients", elements, gradients * batch * d**3 / 3)


def ancestral_sample() -> Iterator[Case]:
    """No interventions."""
    for batch, d, shared, matrices in (
        *((batch, d, False, 1) for batch, d in ((1024, 16), (1024, 64), (256, 128))),
        (1024, 64, False, 2),
        *((batch, d, True, 1) for batch, d in ((1024, 16), (1024, 64), (256, 128))),
        (1024, 64, True, 2),
    ):
        own = 1 if shared else batch
        read, written = matrices * own * d * (d - 1) // 2, matrices * own * d * d
        options = (*(("shared_jac",) if shared else ()), *(("quadratic",) if matrices == 2 else ()))
        call = Call("ancestral_sample", "forward", batch, d, options=options, alike=None if shared else alike(d))
        words = f"{'quadratic' if matrices == 2 else 'linear'}, {'shared' if shared else 'own'} jac"
        flops = matrices * batch * d * d
        yield Case(call, f"{words}, forward", read + 2 * batch * d + d, flops)
        back = call._replace(direction="backward")
        yield Case(back, f"{words}, backward", read + written + 3 * batch * d + d, 2 * flops)


def mlp_ancestral_sample(batch: int = 1024, d: int = 64, hidden: int = 16) -> Iterator[Case]:
    """No interventions."""
    weights = d * (d - 1) // 2 * (hidden + 1) + 2 * d * hidden
    gradients = d * d * (hidden + 1) + 2 * d * hidden + d
    flops = batch * d * d * hidden
    call = Call("mlp_ancestral_sample", "forward", batch, d, hidden)
    yield Case(call, "forward", weights + d + 2 * batch * d, flops)
    back = call._replace(direction="backward")
    yield Case(back, "backward", weights + gradients + 3 * batch * d, 3 * flops)


OPS: dict[str, Callable[[], Iterator[Case]]] = {
    "propagate": propagate,
    "gaussian_kl": gaussian_kl,
    "ancestral_sample": ancestral_sample,
    "mlp_ancestral_sample": mlp_ancestral_sample,
}


def chain(launch: Launch, registers: int) -> float:
    """Seconds that the longest block takes if each step waits for the one before, times the waves of blocks."""
    at_once = h100.MULTIPROCESSORS * h100.occupancy(registers, launch.shared_bytes, launch.threads // 32)
    waves = -(-launch.blocks // at_once)
    cycles = launch.round_trips * h100.ROUND_TRIP + launch.barriers * h100.BARRIER
    return waves * (cycles + launch.exchanges * h100.EXCHANGE) / h100.CLOCK


def cells(case: Case, launches: list[Launch], registers: dict[str, int]) -> list[str]:
    """A row of the table; `registers` of a thread of each kernel."""
    least = 4 * case.elements
    dram, l2, shared, conflict_free = (
        sum(getattr(x, name) for x in launches) for name in ("dram", "l2", "shared", "conflict_free")
    )
    moved = [x.dram / h100.DRAM for x in launches]
    cached = []
    for x, time in zip(launches, moved, strict=True):
        wavefronts = h100.MULTIPROCESSORS * h100.CLOCK * h100.whole_waves(x.blocks)  # a second
        cached.append(max(time, x.l2 / h100.L2, x.shared / wavefronts))
    chained = [max(time, chain(x, registers[x.kernel])) for x, time in zip(launches, cached, strict=True)]
    flops = case.flops / h100.FMA
    times = [max(sum(parts), flops) for parts in (moved, cached, chained)]
    found = [case.shape, case.words, f"{least / 1e6:.2f}", f"{dram / least:.2f}", f"{l2 / 1e6:.1f}"]
    found += [f"{shared / conflict_free:.2f}" if conflict_free else "-", f"{case.floor * 1e6:.2f}"]
    for time in times[:2]:
        found += [f"{time * 1e6:.3g}", f"{time / case.floor:.2f}"]
    return [*found, f"{times[2] * 1e6:.3g}", str(len(launches))]
