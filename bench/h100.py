"""What the model of the GPU kernels takes an H100 to be, and how long a launch takes on it."""

from __future__ import annotations

from typing import NamedTuple

SECTOR, FIRST_CACHE = 32, 1 << 16  # bytes; the share of the first cache that a program is taken to have
DRAM, L2 = 3.0e12, 5.5e12  # bytes a second: a copy, as measured; reads from the L2 cache, about
FMA, TF32 = 67e12, 400e12  # flops a second in float32
MULTIPROCESSORS, REGISTERS, WARPS, SHARED = 132, 65536, 64, 227 << 10  # of an H100, and of each multiprocessor
BLOCKS = 32  # of a multiprocessor, at most
CLOCK = 1.755e9  # cycles a second
ROUND_TRIP, BARRIER, EXCHANGE = 600, 30, 30  # cycles, about; of a shuffle with what follows it


class Count(NamedTuple):
    """What one launch of a Triton kernel moves and computes."""

    kernel: str
    dram: int  # bytes
    shared: int  # bytes of these that are of tensors which the batch shares
    l2: int  # bytes
    flops: int  # of tl.dot, as written: one product, whatever the precision
    precision: str
    programs: int


def whole_waves(programs: float, at_once: int = MULTIPROCESSORS) -> float:
    """The share of `at_once` places that programs fill, wave after wave."""
    waves = -(-programs // at_once)
    return programs / (waves * at_once) if programs else 1.0


def dram_of(count: Count, times: float) -> float:
    """Bytes of so many times the samples."""
    return times * (count.dram - count.shared) + count.shared


def seconds(count: Count, batch: float, *, second_cache: bool) -> float:
    """How long a launch takes, by what it takes most of. Its programs are spread over whole multiprocessors."""
    busy = whole_waves(count.programs * batch)
    rate = {"tf32x3": TF32 / 3, "tf32": TF32}.get(count.precision, FMA)
    l2 = batch * count.l2 / L2 if second_cache else 0
    return max(dram_of(count, batch) / DRAM, l2, batch * count.flops / rate / busy)


def occupancy(registers: int, shared: int, warps: int) -> int:
    """Programs that a multiprocessor holds at once: of `warps` warps, with so many registers a thread and bytes of
    shared memory.
    """
    of_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    return min(of_registers, WARPS // warps, SHARED // (shared + 1024), BLOCKS)
