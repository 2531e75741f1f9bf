"""What the kernels for a GPU should take on an H100: a model, written to bench/results/gpu_model.md.

    TRITON_INTERPRET=1 python bench/gpu_model.py       # after triton_builds.py --write and cuda_builds.py --write

Counts are kept in bench/results/gpu_counts.json; those of kernels that have changed are made again, which takes
half an hour for all of them. GCC is needed for those in CUDA C++.

**How loads and stores are counted.** Triton kernels run in Triton's interpreter. CUDA kernels run on the CPU:
g++ compiles their sources, the threads of a block are fibers (`tests/csrc/cuda_on_cpu.h`), and -fsanitize=thread
puts a call before each access to memory (`bench/cuda_traffic`). So what is counted is what the code really loads
and stores, in sectors of 32 bytes. Samples are alike: a few of them are run, and a batch is as many of them,
except where the batch shares its matrix and in `mlp_ancestral_sample`, of which the whole batch is run.

- **DRAM**: sectors that are read before the call has written them, once, and sectors that are written, once.
  That what is read again is served by the L2 cache (50 MB) is an assumption: launches of `sem_kl` take a batch
  in chunks whose matrices A, L and N are 25 MB together.
- **L2**: sectors that a program or block loads, each once if together they are at most 64 KiB, which the first
  cache holds, and otherwise every time that a warp asks for them; sectors of every store.
- **Arithmetic**: of Triton kernels the products as they are executed, whole tiles, three times over for 3xTF32;
  of CUDA kernels the multiply-adds of the formula, in float32.
- **Shared memory**, of CUDA kernels: wavefronts, one a cycle for each multiprocessor. A request of a warp takes
  as many as the fullest of the 32 banks has words of it. "Bank conflicts" are how many there are for each one
  that would do if words were spread evenly over the banks: 1 is none.
- **The longest chain**, of CUDA kernels: the block that waits most often, if every step waits for the one
  before: 600 cycles for loads between two barriers, 30 for a barrier, 30 for a shuffle with the multiply-add
  that follows; times the waves in which blocks fit on the device. These are round numbers of about the size that
  is published, and how blocks on one multiprocessor hide each other's waiting is not seen: a warning, and no
  prediction.

The floor is that of the compulsory bytes, or of the exact flops in what they are computed in (3xTF32 for
products of full posteriors in Triton, float32 otherwise), whichever is more. A launch takes the longest of what
a column names, with the numbers below; the launches of a call follow each other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cuda_builds
import gpu_table_cuda
import gpu_table_triton
import h100
from fingerprint import fingerprint
from gpu_count_cuda import SOURCES, Launch, launches, program
from gpu_kept import Kept

BENCH = Path(__file__).parent
RESULT, COUNTS = BENCH / "results" / "gpu_model.md", BENCH / "results" / "gpu_counts.json"


def of_triton(*ops: str) -> str:
    """What the counts of Triton kernels depend on: those of an op, and of others that it launches."""
    import triton

    folders = [cuda_builds.ROOT / "causalvae_fast/ops" / op for op in (".", *ops)]
    kernels = [path for folder in folders for path in folder.glob("*triton*.py")]
    return fingerprint([*kernels, BENCH / "gpu_count_triton.py"], triton.__version__)


def of_cuda() -> str:
    """What the counts of CUDA kernels depend on."""
    tools = [*SOURCES.iterdir(), BENCH / "gpu_count_cuda.py", cuda_builds.ROOT / "tests/csrc/cuda_on_cpu.h"]
    return fingerprint(tools, cuda_builds.current())


def cuda_registers() -> dict[str, int]:
    """Of a thread of each CUDA kernel, on sm_90."""
    builds = json.loads(cuda_builds.BASELINE.read_text())["kernels"]
    return {k.removesuffix(" sm_90"): v["registers"] for k, v in builds.items() if k.endswith(" sm_90")}


def cuda_rows(kept: Kept, traffic: Callable[[], Path], op: str) -> Iterator[str]:
    """The table of an op in CUDA C++; `traffic` compiles the program that counts, where counts are missing."""
    heads = ("N x d x h" if op.startswith("mlp") else "B x d", *gpu_table_cuda.HEADS[1:])
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    registers = cuda_registers()
    for case in gpu_table_cuda.OPS[op]():
        found = kept.get(f"{op} {case.shape}, {case.words}", lambda case=case: launches(traffic(), case.call))
        cells = gpu_table_cuda.cells(case, [Launch(*fields) for fields in found], registers)
        yield f"| {' | '.join(cells)} |"


def occupancy_rows() -> Iterator[str]:
    """What the compiler says, and how many programs a multiprocessor holds."""
    yield "| kernel on sm_90 | registers | shared memory | spills | programs at once |"
    yield "|---|---|---|---|---|"
    builds: dict[str, Any] = json.loads((BENCH / "results" / "triton_builds.json").read_text())["builds"]
    for key, build in builds.items():
        if key.endswith("sm_90"):
            warps = int(key.split("num_warps=")[1].split()[0])
            at_once = h100.occupancy(build["registers"], build["shared"], warps)
            yield f"| {key.removesuffix(' sm_90')} | {' | '.join(map(str, build.values()))} | {at_once} |"


def cuda_occupancy_rows(kept: Kept) -> Iterator[str]:
    """The same for the launches of the CUDA kernels that were counted."""
    yield "| kernel | threads | registers | shared memory | blocks at once | warps |"
    yield "|---|---|---|---|---|---|"
    registers = cuda_registers()
    counted = {Launch(*fields) for found in kept.counts_by_name.values() for fields in found}
    for name, threads, shared in sorted({(x.kernel, x.threads, x.shared_bytes) for x in counted}):
        at_once = h100.occupancy(registers[name], shared, threads // 32)
        cells = (f"`{name}`", threads, registers[name], shared, at_once, at_once * threads // 32)
        yield f"| {' | '.join(map(str, cells))} |"


def page(triton: dict[str, Kept], cuda: Kept) -> Iterator[str]:
    """The paragraphs and tables of the page."""
    assert __doc__ is not None
    yield "# A model of the GPU kernels on an H100"
    yield __doc__[__doc__.index("**How") :].strip()
    numbers = f"DRAM {h100.DRAM / 1e12} TB/s, L2 {h100.L2 / 1e12} TB/s, float32 {h100.FMA / 1e12:.0f} and TF32 "
    numbers += f"{h100.TF32 / 1e12:.0f} TFLOP/s, {h100.CLOCK / 1e9} GHz."
    yield f"Nothing here was measured on a GPU. {numbers} Times are without launches, about 3 us each."
    yield (
        "Launches are of kernels. Where `sem_kl` and `mlp_sem_kl` take a batch in chunks there are as many for "
        "each, and their sums over the batch, which are torch's, are not among them."
    )
    yield "What the instructions are is in [gpu_instructions.md](gpu_instructions.md)."
    yield (
        "Not counted, since it takes the CPU too long: 16 x 512 of `gaussian_kl` by covariance matrices. Nor are "
        "a p that the batch shares, and interventions."
    )
    yield "## Triton"
    for op, table in (
        ("sem_kl", gpu_table_triton.sem_kl),
        ("mlp_sem_kl", gpu_table_triton.mlp_sem_kl),
        ("pivot_kl", gpu_table_triton.pivot_kl),
    ):
        yield f"### {op}{', tanh' if op == 'mlp_sem_kl' else ''}"
        if op == "pivot_kl":
            yield (
                "Gradients are those of a backward pass alone. Most of it are operations of torch, each of which "
                "is taken to read its operands and to write its result, in DRAM, as if no cache kept anything."
            )
        yield "\n".join(table(triton[op]))
    yield "## CUDA C++"
    with ExitStack() as stack:
        traffic = cache(lambda: stack.enter_context(program()))
        for op in gpu_table_cuda.OPS:
            yield f"### {op}"
            yield "\n".join(cuda_rows(cuda, traffic, op))
    yield "## Occupancy"
    yield "Programs or blocks at once are those that registers and shared memory of a multiprocessor allow."
    yield "\n".join(cuda_occupancy_rows(cuda))
    yield "\n".join(occupancy_rows())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if os.environ.get("TRITON_INTERPRET") != "1":
        sys.exit("set TRITON_INTERPRET=1: Triton kernels are counted in its interpreter")
    ops = {"sem_kl": ("sem_kl",), "mlp_sem_kl": ("mlp_sem_kl", "sem_kl"), "pivot_kl": ("pivot_kl",)}
    triton = {op: Kept(COUNTS, f"triton, {op}", of_triton(*on)) for op, on in ops.items()}
    RESULT.write_text("\n\n".join(page(triton, Kept(COUNTS, "cuda", of_cuda()))) + "\n")


if __name__ == "__main__":
    main()
