"""What this machine can do at most, measured when a benchmark starts: the ceilings that bound.py divides by.

    python bench/machine.py --threads 1

- **Arithmetic**: fused multiply-adds on registers only, with the widest vectors that the compiler knows for this
  processor, in float32 and float64. Nothing that reads an operand from memory does better.
- **Bandwidth**: reading, writing, copying (one number read for each that is written) and adding (two read for
  each written) a working set, again and again. One number would not do: what fits into the first cache moves ten
  times faster than what lies in memory. So each is measured for working sets from 4 KiB, which stay in the first
  cache, to 256 MiB, which no cache holds, and a row of results is held against the bandwidth of its own working
  set.

Each number is the best of many short rounds, since only then is it a ceiling: what else runs on a shared machine
makes rounds slower, never faster. With n threads it is what n threads do together, each on its part of the
working set.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "bench" / "machine.cpp"
# -march=native would be wrong in a package; here the question is what this very processor can do.
COMPILE = (
    "c++",
    "-std=c++20",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-Wno-psabi",
    "-Wno-ignored-attributes",
)
COMPILE += ("-DCVF_ISA=native", f"-I{ROOT / 'csrc'}", "-shared", "-fPIC", "-pthread")

KINDS = ("read", "write", "copy", "add")
# Powers of two, and where the last cache may end also what lies between them.
WORKING_SETS = tuple(sorted({1 << k for k in range(12, 29)} | {3 << k for k in range(20, 27)}))


class Rates(NamedTuple):
    """Bytes a second at one working set."""

    read: float
    write: float
    best: float  # of all mixtures that were measured, read and written bytes added up


class Machine(NamedTuple):
    """The ceilings of a number of threads."""

    threads: int
    flops: dict[str, float]  # a second, by dtype
    rates: dict[int, Rates]  # by working set, in bytes

    def rates_of(self, working_set: float) -> Rates:
        """Never less than a working set of this size can have: those of the next smaller one that was measured,
        and no less than those of any larger one, which only noise can make faster.
        """
        sizes = sorted(self.rates)
        first = max((s for s in sizes if s <= working_set), default=sizes[0])
        return Rates(*map(max, zip(*(self.rates[s] for s in sizes if s >= first), strict=True)))


@functools.cache
def measure(threads: int = 1, seconds: float = 0.02) -> Machine:
    """Takes about five seconds, twice that for several threads, and a C++ compiler. Each number gets `seconds`."""
    library = _compiled()
    memory = torch.ones(max(WORKING_SETS) + 4096 * (threads + 1), dtype=torch.uint8)
    flops = {
        "float32": library.fma_flops_float32(threads, 10 * seconds),
        "float64": library.fma_flops_float64(threads, 10 * seconds),
    }
    rates = {}
    for size in WORKING_SETS:
        measured = [
            library.bandwidth(memory.data_ptr(), kind, size, threads, seconds) for kind in range(len(KINDS))
        ]
        rates[size] = Rates(measured[0], measured[1], max(measured))
    return Machine(threads, flops, rates)


def ceilings(threads: int = 1) -> Machine:
    """Those of n threads are at least those of one, which needs no second processor that happens to be free."""
    one, many = measure(1), measure(threads)
    flops = {dtype: max(one.flops[dtype], many.flops[dtype]) for dtype in one.flops}
    rates = {size: Rates(*map(max, zip(one.rates[size], many.rates[size], strict=True))) for size in one.rates}
    return Machine(threads, flops, rates)


@functools.cache
def _compiled() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "machine.so"
        try:
            subprocess.run([*COMPILE, str(SOURCE), "-o", str(target)], check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise RuntimeError("no C++ compiler (c++) to measure this machine with") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{SOURCE.name} does not compile here: {error.stderr}") from error
        library = ctypes.CDLL(str(target))
    for name in ("fma_flops_float32", "fma_flops_float64"):
        getattr(library, name).argtypes = [ctypes.c_int, ctypes.c_double]
        getattr(library, name).restype = ctypes.c_double
    library.bandwidth.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_double]
    library.bandwidth.restype = ctypes.c_double
    return library


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the ceilings of this machine.")
    parser.add_argument("--threads", type=int, default=1)
    machine = ceilings(parser.parse_args().threads)
    print(
        f"threads {machine.threads}, GFLOP/s: " + ", ".join(f"{k} {v / 1e9:.1f}" for k, v in machine.flops.items())
    )
    print(f"{'KiB':>8} {'read':>8} {'write':>8} {'best':>8}  GB/s")
    for size, rates in machine.rates.items():
        print(f"{size // 1024:>8} " + " ".join(f"{rate / 1e9:8.1f}" for rate in rates))


if __name__ == "__main__":
    main()
