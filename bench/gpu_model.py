"""What the kernels for a GPU should take on an H100: a model, written to bench/results/gpu_model.md.

    TRITON_INTERPRET=1 python bench/gpu_model.py       # after triton_builds.py --write; one minute

Triton's interpreter runs each launch of a call on one sample, and every load, store and product is counted as it
happens: 32-byte sectors that a load or store touches, and multiply-adds. Samples are alike, a batch is B of them.

- **DRAM**: sectors that are read before the call has written them, once, and sectors that are written, once. That
  the second read of a sample's matrices is served by the L2 cache (50 MB) is an assumption: launches take a batch
  in chunks whose matrices A, L and N are 25 MB together.
- **L2**: sectors that a program loads, each once if together they are at most 64 KiB, which the first cache holds,
  and otherwise every time; sectors of every store.
- **Arithmetic**: the products as they are executed, whole tiles, three times over for 3xTF32.

A launch takes the longest of the three, with the numbers below; the launches of a call follow each other.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

RESULT = Path(__file__).parent / "results" / "gpu_model.md"
SECTOR, FIRST_CACHE = 32, 1 << 16  # bytes; the share of the first cache that a program is taken to have
DRAM, L2 = 3.0e12, 5.5e12  # bytes a second: a copy, as measured; reads from the L2 cache, about
FMA, TF32 = 67e12, 400e12  # flops a second in float32
MULTIPROCESSORS, REGISTERS, WARPS, SHARED = 132, 65536, 64, 227 << 10  # of an H100, and of each multiprocessor
SHAPES = ((1024, 64), (256, 128), (64, 256), (16, 512), (16384, 64))


class Count(NamedTuple):
    """What one launch moves and computes, for one sample."""

    kernel: str
    dram: int  # bytes
    l2: int  # bytes
    flops: int  # of tl.dot, as written: one product, whatever the precision
    precision: str
    programs: int


class _Counter:
    def __init__(self) -> None:
        self.seen: set[int] = set()  # sectors that the call has read or written
        self.written: set[int] = set()
        self.counts: list[Count] = []
        self.loaded: set[int] = set()  # by the program that runs
        self.clear()

    def clear(self) -> None:
        self.dram, self.l2, self.flops, self.precision = 0, 0, 0, "-"
        self.loaded, self.loads = set(), 0

    def begin_program(self) -> None:
        """Adds what the last program loaded."""
        self.l2 += len(self.loaded) if len(self.loaded) * SECTOR <= FIRST_CACHE else self.loads
        self.loaded, self.loads = set(), 0

    def load(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        sectors = np.unique(pointers[mask] // SECTOR).tolist()
        self.loads += len(sectors)
        self.loaded |= set(sectors)
        fresh = set(sectors) - self.seen
        self.dram += len(fresh)
        self.seen |= fresh

    def store(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        sectors = np.unique(pointers[mask] // SECTOR).tolist()
        self.l2 += len(sectors)
        fresh = set(sectors) - self.written
        self.dram += len(fresh)
        self.written |= fresh
        self.seen |= fresh

    def end(self, kernel: str, grid: tuple[int, ...]) -> None:
        self.begin_program()
        programs = int(np.prod(grid))
        count = Count(kernel, self.dram * SECTOR, self.l2 * SECTOR, self.flops, self.precision, programs)
        self.counts.append(count)
        self.clear()


@contextmanager
def counted(module: Any) -> Iterator[list[Count]]:
    """What each launch of a launcher's module moves and computes, in the interpreter."""
    from triton.runtime.interpreter import InterpreterBuilder

    counter = _Counter()
    builder = InterpreterBuilder
    load, store, dot = builder.create_masked_load, builder.create_masked_store, builder.create_dot
    start = builder.set_grid_idx

    def counting_start(self: Any, *index: int) -> None:
        counter.begin_program()
        start(self, *index)

    def counting_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        counter.load(pointers.data, mask.data)
        return load(self, pointers, mask, *rest)

    def counting_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        counter.store(pointers.data, mask.data)
        return store(self, pointers, value, mask, *rest)

    def counting_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: int) -> Any:
        counter.flops += 2 * a.data.size * b.data.shape[-1]
        counter.precision = precision.name.lower()
        return dot(self, a, b, d, precision, imprecise)

    class Counted:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*args: Any, **kwargs: Any) -> None:
                self.kernel[grid](*args, **kwargs)
                counter.end(self.name, grid)

            return launch

    kernels = {name: kernel for name, kernel in vars(module).items() if name.endswith("_kernel")}
    try:
        builder.create_masked_load, builder.create_masked_store = counting_load, counting_store
        builder.create_dot, builder.set_grid_idx = counting_dot, counting_start
        for name, kernel in kernels.items():
            setattr(module, name, Counted(name, kernel))
        yield counter.counts
    finally:
        builder.create_masked_load, builder.create_masked_store, builder.create_dot = load, store, dot
        builder.set_grid_idx = start
        for name, kernel in kernels.items():
            setattr(module, name, kernel)


class Case(NamedTuple):
    """A column of the table."""

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


def measure(case: Case, d: int) -> list[Count]:
    """The launches of one sample."""
    module = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")
    size = d * (d + 1) // 2
    matrix = (1, size) if case.packed else (1, d, d)

    def row() -> Tensor:
        return torch.ones(1, d)

    factor = torch.ones(matrix) if case.posterior == "full" else row()
    options: dict[str, Any] = {"packed_jac": case.packed, "packed_scale_tril": case.packed and factor.dim() == 2}
    options["packed_scale_tril"] = case.packed and case.posterior == "full"
    with counted(module) as counts:
        module.sem_kl_triton(
            torch.zeros(matrix), row(), torch.zeros(d), row(), factor,
            upstream=torch.ones(1), wanted=(case.gradients,) * 5, **options,
        )  # fmt: skip
    return counts


def measure_mlp(posterior: str, gradients: bool, batch: int, d: int, hidden: int) -> list[Count]:
    """The launches of a few samples of `mlp_sem_kl`, those of `sem_kl` among them."""
    module = importlib.import_module("causalvae_fast.ops.mlp_sem_kl.triton_kernel")
    linear = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")
    shapes = [(batch, d), (d, hidden, d), (d, hidden), (d, hidden), (d,), (d, d), (d,), (batch, d)]
    factor = torch.ones(batch, d) if posterior == "diagonal" else torch.eye(d).repeat(batch, 1, 1)
    with counted(module) as counts, counted(linear) as others:
        module.mlp_sem_kl_triton(
            "tanh", *(torch.full(shape, 0.01) for shape in shapes), factor,
            upstream=torch.ones(batch) if gradients else "none", wanted=(gradients,) * 9,
        )  # fmt: skip
    return [*counts, *others]


def mlp_rows(batch: int, d: int, hidden: int, part: int = 64) -> Iterator[str]:
    """The same table for `mlp_sem_kl`, from a `part` of the batch; what the batch shares is moved once."""
    below = d * (d - 1) // 2
    for posterior, gradients in itertools.product(("diagonal", "full"), (False, True)):
        counts = measure_mlp(posterior, gradients, part, d, hidden)
        own = (d * (d + 1) // 2 if posterior == "full" else d) + 2 * d
        written = (d * d if posterior == "full" else d) + 2 * d if gradients else 0
        shared = below * (hidden + 1) + 2 * d * (hidden + 1)
        shared += d * d * (hidden + 1) + 2 * d * (hidden + 1) if gradients else 0
        least, times = 4 * (batch * (own + written + 1) + shared), batch // part
        exact = batch * hidden * d * (d - 1) * (6 if gradients else 2)
        exact += batch * d**3 * (3 if gradients else 1) // 3 if posterior == "full" else 0
        dram = times * (sum(c.dram for c in counts) - 4 * shared) + 4 * shared
        floor = max(least / DRAM, 3 * exact / TF32)
        model, cached = (sum(seconds(c, times, second_cache=x) for c in counts) for x in (False, True))
        cells = [f"{batch} x {d} x {hidden}", f"{posterior}, {'value and gradients' if gradients else 'value'}"]
        cells += [f"{least / 1e6:.1f}", f"{dram / least:.2f}", f"{times * sum(c.l2 for c in counts) / 1e6:.0f}"]
        cells += [f"{times * sum(c.flops for c in counts) / exact:.2f}", f"{floor * 1e6:.1f}"]
        cells += [f"{x:.3g}" for x in (model * 1e6, model / floor, cached * 1e6, cached / floor)]
        for c in counts:
            print(c, file=sys.stderr, flush=True)
        yield f"| {' | '.join(cells)} |"


def seconds(count: Count, batch: int, *, second_cache: bool) -> float:
    """How long a launch takes, by what it takes most of. Its programs are spread over whole multiprocessors."""
    programs = count.programs * batch
    waves = -(-programs // MULTIPROCESSORS)
    busy = programs / (waves * MULTIPROCESSORS)
    rate = {"tf32x3": TF32 / 3, "tf32": TF32}.get(count.precision, FMA)
    l2 = batch * count.l2 / L2 if second_cache else 0
    return max(batch * count.dram / DRAM, l2, batch * count.flops / rate / busy)


def occupancy(build: dict[str, int], warps: int) -> int:
    """Programs of `warps` warps that a multiprocessor holds at once."""
    registers = -(-build["registers"] // 8) * 8 * 32 * warps
    return min(REGISTERS // registers, WARPS // warps, SHARED // max(build["shared"] + 1024, 1), 32)


def rows() -> Iterator[str]:
    """The table."""
    heads = ["B x d", "case", "compulsory, MB", "DRAM, times that", "L2, MB", "flops, times the exact"]
    heads += ["floor, us", "by DRAM and flops, us", "times the floor", "with L2, us", "times the floor"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    counted_samples: dict[tuple[Case, int], list[Count]] = {}
    for batch, d in SHAPES:
        for case in CASES:
            if (case, d) not in counted_samples:
                counted_samples[case, d] = measure(case, d)
            counts = counted_samples[case, d]
            least = compulsory(case, batch, d)
            dram, l2 = (batch * sum(getattr(c, name) for c in counts) for name in ("dram", "l2"))
            executed, exact = batch * sum(c.flops for c in counts), flops(case, batch, d)
            floor = max(least / DRAM, 3 * exact / TF32)
            model, cached = (sum(seconds(c, batch, second_cache=x) for c in counts) for x in (False, True))
            more = f"{executed / exact:.2f}" if exact else "-"
            cells = [
                f"{batch} x {d}",
                str(case),
                f"{least / 1e6:.1f}",
                f"{dram / least:.2f}",
                f"{l2 / 1e6:.0f}",
                more,
            ]
            cells += [f"{floor * 1e6:.1f}", *(f"{x:.3g}" for x in (model * 1e6, model / floor))]
            cells += [f"{x:.3g}" for x in (cached * 1e6, cached / floor)]
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    lines = []
    for line in itertools.chain(rows(), mlp_rows(1024, 64, 16)):
        print(line, flush=True)
        lines.append(line)
    builds = json.loads((RESULT.parent / "triton_builds.json").read_text())["builds"]
    table = [
        "| kernel on sm_90 | registers | shared memory | spills | programs at once |",
        "|---|---|---|---|---|",
    ]
    for key, build in builds.items():
        if key.endswith("sm_90"):
            warps = int(key.split("num_warps=")[1].split()[0])
            cells = [key.removesuffix(" sm_90"), *map(str, build.values()), str(occupancy(build, warps))]
            table.append(f"| {' | '.join(cells)} |")
    assert __doc__ is not None
    text = ["# A model of the Triton kernels on an H100", __doc__.split("\n\n", 2)[2].strip()]
    bandwidths = f"DRAM {DRAM / 1e12} TB/s, L2 {L2 / 1e12} TB/s"
    numbers = f"{bandwidths}, float32 {FMA / 1e12:.0f} and TF32 {TF32 / 1e12:.0f} TFLOP/s."
    text += [f"Nothing here was measured on a GPU. {numbers} Times are without launches.", "\n".join(lines)]
    text += [
        "Programs at once are those that registers and shared memory of a multiprocessor allow.",
        "\n".join(table),
    ]
    RESULT.write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
