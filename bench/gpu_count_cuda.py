"""What the CUDA kernels load and store, counted while they run on the CPU (gpu_model.py).

The program of bench/cuda_traffic is compiled in a temporary folder, with a call before each access to memory.
Where samples are alike, small batches are run, and a larger one is what they grow to.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cuda_builds import ROOT, readable

SOURCES = ROOT / "bench" / "cuda_traffic"
FLAGS = ("-std=c++20", "-g1", "-Wno-unknown-pragmas", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'csrc'}")
# Structs of four numbers are read at once on the device, so they must not be taken apart.
COUNTED = ("-O1", "-fno-tree-sra", "-fsanitize=thread")
ADDED_UP = ("dram", "l2", "shared", "conflict_free")


class Launch(NamedTuple):
    """What one launch does; bytes are of whole sectors (bench/cuda_traffic/counter.h)."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    dram: float
    l2: float
    shared: float
    conflict_free: float
    barriers: int
    round_trips: int
    exchanges: int


class Call(NamedTuple):
    """A call of an op. `alike`: two batches that stand for a larger one of which every sample has the same work;
    or one, where samples share nothing.
    """

    op: str
    direction: str  # "forward" or "backward"
    batch: int
    d: int
    hidden: int = 0
    options: tuple[str, ...] = ()
    alike: tuple[int, ...] | None = None

    def line(self, batch: int, mode: str) -> str:
        words = (self.op, self.direction, batch, self.d, self.hidden, mode, *self.options)
        return " ".join(map(str, words))


@contextmanager
def program() -> Iterator[Path]:
    """The compiled program.

    Raises:
        RuntimeError: with what the compiler says, if it is not GCC, or fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = [str(folder / f"{part}.o") for part in ("calls", "counter")]
        for part, flags, target in zip(("calls", "counter"), (COUNTED, ("-O2",)), objects, strict=True):
            _run("g++", *FLAGS, *flags, "-c", str(SOURCES / f"{part}.cpp"), "-o", target)
        _run("g++", "-rdynamic", *objects, "-ldl", "-o", str(folder / "traffic"))
        yield folder / "traffic"


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def launches(traffic: Path, call: Call) -> list[Launch]:
    """What the launches of a call do."""
    if call.alike is None:
        return _launches(traffic, call.line(call.batch, "run"))
    plan = _launches(traffic, call.line(call.batch, "plan"))
    runs = [_launches(traffic, call.line(batch, "run")) for batch in call.alike]
    found = []
    for k, planned in enumerate(plan):
        if k >= len(runs[-1]):  # a pass over partial sums that a small batch does not have: a few rows
            found.append(planned)
            continue
        more = runs[-1][k]
        few = runs[0][k] if len(runs) > 1 else more._replace(**dict.fromkeys(ADDED_UP, 0))
        assert planned.kernel == few.kernel == more.kernel
        first = call.alike[0] if len(runs) > 1 else 0
        step = (call.batch - first) / (call.alike[-1] - first)
        grown = {name: getattr(few, name) + step * (getattr(more, name) - getattr(few, name)) for name in ADDED_UP}
        steps = {name: getattr(more, name) for name in ("barriers", "round_trips", "exchanges")}
        found.append(planned._replace(**grown, **steps))
    return found


def _launches(traffic: Path, line: str) -> list[Launch]:
    found: list[dict[str, Any]] = json.loads(_run(str(traffic), given=line + "\n"))
    return [Launch(**{**launch, "kernel": readable(launch["kernel"])}) for launch in found]
