"""What the machine code of the GPU kernels is made of, for sm_90, written to bench/results/gpu_instructions.md.

    python bench/gpu_instructions.py       # nvcc on the PATH, and Triton, whose disassembler is used; two minutes

Counts are static: how often an instruction stands in a kernel's code, not how often it is carried out. The loop
is the innermost one with most FFMA and HMMA, multiply-adds of lanes and products of tiles on tensor cores (16 x
8 x 8 numbers in TF32); there is none where no loop has any. LDG and STG are of global memory, LDGSTS loads from
there into shared memory, LDS and STS (with LDSM, STSM) are of shared memory, LD and ST of either, LDL and STL of
what has no register.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import cuda_builds

RESULT = Path(__file__).parent / "results" / "gpu_instructions.md"
ARCH = 90
COLUMNS = {
    "FFMA": ("FFMA",),
    "HMMA": ("HMMA", "HGMMA"),
    "MUFU": ("MUFU",),
    "LDG": ("LDG",),
    "STG": ("STG",),
    "LDGSTS": ("LDGSTS",),
    "LDS": ("LDS", "LDSM"),
    "STS": ("STS", "STSM"),
    "LD, ST": ("LD", "ST"),
    "LDL, STL": ("LDL", "STL"),
    "SHFL": ("SHFL",),
    "BAR": ("BAR", "WARPSYNC"),
}


class Instruction(NamedTuple):
    """At an address, with where it jumps to, if it is a branch."""

    address: int
    name: str  # without what follows the first dot
    target: int | None


def parse(sass: str) -> dict[str, list[Instruction]]:
    """The instructions of each function in what cuobjdump -sass prints; NOP left out."""
    found: dict[str, list[Instruction]] = {}
    code: list[Instruction] = []
    line = r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)([^;]*);"
    for text in sass.splitlines():
        if header := re.search(r"Function : (\S+)", text):
            code = found.setdefault(header[1], [])
        elif (match := re.search(line, text)) and match[2] != "NOP":
            target = re.search(r"0x([0-9a-f]+)\s*$", match[3]) if match[2] == "BRA" else None
            code.append(Instruction(int(match[1], 16), match[2], int(target[1], 16) if target else None))
    return found


def mix(code: list[Instruction]) -> Counter[str]:
    """How many there are of each column, and of others."""
    column = {name: key for key, names in COLUMNS.items() for name in names}
    return Counter(column.get(i.name, "other") for i in code)


def hot_loop(code: list[Instruction]) -> list[Instruction]:
    """The innermost loop with most multiply-adds; nothing where no loop has any."""
    spans = {(i.target, i.address) for i in code if i.target is not None and i.target < i.address}
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    loops = [[i for i in code if begin <= i.address <= end] for begin, end in sorted(inner)]

    def products(loop: list[Instruction]) -> int:
        counts = mix(loop)
        return counts["FFMA"] + counts["HMMA"]

    best = max(loops, key=products, default=[])
    return best if products(best) else []


def cells(code: list[Instruction]) -> list[str]:
    """A row of the table."""
    counts, loop = mix(code), hot_loop(code)
    inside = mix(loop)
    row = [str(len(code)), *(str(counts[name]) for name in [*COLUMNS, "other"])]
    products = "HMMA" if inside["HMMA"] else "FFMA"
    words = f"{len(loop)}: {inside[products]} {products}, {inside['LDS']} LDS, {inside['LD, ST']} LD, "
    words += f"{inside['LDG']} LDG, "
    return [*row, words + f"{inside['SHFL']} SHFL, {inside['BAR']} BAR" if loop else "-"]


def disassemble(cubin: Path) -> dict[str, list[Instruction]]:
    import triton_builds

    command = [str(triton_builds.TOOLS / "cuobjdump"), "-sass", str(cubin)]
    return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def of_cuda() -> Iterator[tuple[str, list[Instruction]]]:
    """The kernels in CUDA C++; those that several sources have, once."""
    known = set()
    for source in cuda_builds.sources():
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "out.cubin"
            command = [str(cuda_builds.nvcc()), *cuda_builds.FLAGS, "-cubin", f"-arch=sm_{ARCH}"]
            command += [f"-I{cuda_builds.ROOT / 'csrc'}", str(source), "-o", str(cubin)]
            subprocess.run(command, capture_output=True, check=True)
            for symbol, code in sorted(disassemble(cubin).items()):
                name = cuda_builds.readable(symbol)
                if "double" not in name and name not in known:
                    known.add(name)
                    yield name, code


def of_triton() -> Iterator[tuple[str, list[Instruction]]]:
    """The kernels in Triton, in the configurations of the model's tables, with all gradients."""
    import torch
    import triton_builds as builds

    launches = []
    for d in (64, 128):
        launches += [*builds.sem_kl_launches(256, d, False), *builds.sem_kl_launches(256, d, True)]
    for posterior in ("diagonal", "full"):
        launches += builds.mlp_sem_kl_launches(1024, 64, 16, posterior)
        launches += builds.pivot_kl_launches(1024, 32, 64, posterior == "full", torch.float32, "logsumexp")
    for launch in builds.one_of_each_configuration(launches):
        compiled = builds.compile_launch(launch, ARCH)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            (code,) = disassemble(Path(file.name)).values()
        op = launch.kernel.fn.__module__.split(".")[-2]
        tiles = " ".join(f"{k}={v}" for k, v in launch.arguments.items() if k.isupper() and isinstance(v, int))
        full = launch.arguments.get("full")
        yield f"{op}::{launch.kernel.__name__} {tiles}{' full' if full else ''}", code


def table(kernels: Iterator[tuple[str, list[Instruction]]]) -> Iterator[str]:
    heads = ("kernel", "instructions", *COLUMNS, "other", "its hot loop")
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for name, code in kernels:
        yield f"| {' | '.join([f'`{name}`', *cells(code)])} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET must not be set: the interpreter compiles nothing")
    if cuda_builds.nvcc() is None:
        sys.exit("nvcc is not on the PATH")
    assert __doc__ is not None
    text = ["# Instructions of the GPU kernels, sm_90, float32", __doc__.split("\n\n", 2)[2].strip()]
    text += ["## CUDA C++", "\n".join(table(of_cuda())), "## Triton", "\n".join(table(of_triton()))]
    RESULT.write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
