"""What a second thread brings, op by op: ours with one thread and with two, in turns.

    python bench/threads.py                      # on two processors with nothing else to do: seven to ten minutes
    python bench/threads.py --ops sem_kl --seconds 1

The cases are those of the benchmarks, in float32. Work of less than a millisecond should not become slower, more
should become at least 1.7 times as fast. What the machine allows is measured beside them, by operations of torch
that have no serial part: a product of matrices, which is arithmetic, and reading and copying what no cache holds.
Writes bench/results/threads.md.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ops"))

import records
from interleave import Call, Contenders, Times, measure
from memory import use_one_heap

# Of each benchmark, the lists of cases and the contenders that they have.
OPS = {
    "sem_kl": (("CASES", "SEMKLContenders"),),
    "mlp_sem_kl": (("CASES", "MLPSEMKLContenders"),),
    "gaussian_kl": (("CASES", "GaussianKLContenders"),),
    "propagate": (("CASES", "PropagateContenders"),),
    "pivot_kl": (("CASES", "PivotKLContenders"),),
    "ancestral_sample": (("CASES", "AncestralSampleContenders"), ("MLP_CASES", "MLPContenders")),
}
LARGE_MS = 1.0
YARDSTICKS = "torch"


class OneAndTwo:
    """A call, as contenders that differ in the number of threads alone."""

    def __init__(self, contenders: Contenders) -> None:
        self._contenders = contenders

    def build(self, contender: str) -> Call:
        call, threads = self._contenders.build("ours"), int(contender)

        def step() -> Any:
            torch.set_num_threads(threads)
            return call()

        return step

    def verify(self, contender: str, result: Any) -> None:
        self._contenders.verify("ours", result)


class Yardstick:
    """An operation of torch, which is right by assumption."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def build(self, contender: str) -> Call:
        return self._call

    def verify(self, contender: str, result: Any) -> None:
        pass


def yardsticks() -> dict[str, Call]:
    matrix = torch.randn(768, 768)
    memory, other = torch.ones(16 << 20), torch.ones(16 << 20)  # 64 MiB each
    product, total = torch.empty_like(matrix), torch.empty(())
    return {
        "mm 768x768": lambda: torch.mm(matrix, matrix, out=product),
        "sum of 64 MiB": lambda: torch.sum(memory, dim=0, out=total),
        "copy of 64 MiB": lambda: other.copy_(memory),
    }


class Row(NamedTuple):
    op: str
    case: str
    one: float  # ms
    two: float
    ratio: float  # the median over rounds of one over two
    best: float  # the shortest round of one over the shortest of two

    def __str__(self) -> str:
        return (
            f"| {self.op} | {self.case} | {self.one:.3g} | {self.two:.3g} | {self.ratio:.2f} | {self.best:.2f} |"
        )


def rows(ops: list[str], seconds: float) -> Iterator[Row]:
    for name, call in yardsticks().items():
        yield row(YARDSTICKS, name, measure(OneAndTwo(Yardstick(call)), ["1", "2"], 5 * seconds, 5))
    for op in ops:
        module = importlib.import_module(f"bench_{op}")
        for cases, contenders in OPS[op]:
            for case in getattr(module, cases):
                if case.dtype == torch.float32:
                    times = measure(OneAndTwo(getattr(module, contenders)(case)), ["1", "2"], seconds, 5)
                    yield row(op, str(case).removesuffix("-float32"), times)


def row(op: str, case: str, times: dict[str, Times | Exception]) -> Row:
    one, two = times["1"], times["2"]
    for found in (one, two):
        if isinstance(found, Exception):
            raise found
    assert isinstance(one, Times)
    assert isinstance(two, Times)
    ratio = statistics.median(a / b for a, b in zip(one.seconds, two.seconds, strict=True))
    return Row(
        op, case, records.median_ms(one), records.median_ms(two), ratio, min(one.seconds) / min(two.seconds)
    )


def report(found: list[Row], environment: dict[str, Any]) -> str:
    ours = [r for r in found if r.op != YARDSTICKS]
    large = [r for r in ours if r.one >= LARGE_MS]
    small = [r for r in ours if r.one < LARGE_MS]
    lines = [
        "# Two threads",
        "",
        "Written by bench/threads.py. float32, through autograd, medians in ms, in turns.",
    ]
    lines += ["", ", ".join(f"{k} {environment[k]}" for k in ("device", "torch", "commit")), ""]
    for name, part, least in (
        (f"At least {LARGE_MS:g} ms", large, 1.7),
        (f"Less than {LARGE_MS:g} ms", small, 1.0),
    ):
        if part:
            below = sum(r.ratio < least for r in part)
            best_below = sum(r.best < least for r in part)
            middle, best = (
                statistics.median(ratios) for ratios in zip(*((r.ratio, r.best) for r in part), strict=True)
            )
            lines.append(
                f"{name} with one thread, {len(part)} cases: {middle:.2f} times as fast in the median, "
                f"{below} below {least:g}; by the shortest rounds {best:.2f}, {best_below} below."
            )
    lines += [
        "",
        "| op | case | one thread, ms | two threads, ms | times as fast | by the shortest rounds |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(str, found)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", default=list(OPS), choices=list(OPS))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    options = parser.parse_args()
    use_one_heap()
    found = []
    for each in rows(options.ops, options.seconds):
        print(each, flush=True)
        found.append(each)
    target = records.RESULTS / "threads.md"
    target.write_text(report(found, records.environment()))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
