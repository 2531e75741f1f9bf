"""What the CUDA kernels compile to, without a GPU: registers, static shared memory and spills of each.

    python bench/cuda_builds.py            # print what nvcc says
    python bench/cuda_builds.py --write    # replace bench/results/cuda_builds.json

The baseline holds a fingerprint of the sources. Where it fits, nothing has to be compiled again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "bench" / "results" / "cuda_builds.json"
ARCHITECTURES = (80, 90)
FLAGS = (
    "-std=c++20",
    "-O3",
    "-DNDEBUG",
    "--expt-relaxed-constexpr",
    "-Xptxas",
    "-v",
)  # as CMakeLists.txt has them

Resources = dict[str, int]


def nvcc() -> str | None:
    return shutil.which("nvcc")


def sources() -> list[Path]:
    return sorted(ROOT.glob("csrc/ops/*/*_cuda.cu"))


def current() -> str:
    """The fingerprint of all that the kernels depend on: sources, headers, flags."""
    headers = [path for end in ("cuh", "h") for path in ROOT.glob(f"csrc/**/*.{end}")]
    return fingerprint([*sources(), *(path for path in headers if "bindings" not in path.parts)], FLAGS)


def release() -> str:
    compiler = nvcc()
    assert compiler is not None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", version)
    assert found is not None
    return found[1]


def compile_source(source: Path, arch: int) -> dict[str, Resources]:
    """What each kernel of a source takes on an architecture."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(nvcc()), *FLAGS, "-cubin", f"-arch=sm_{arch}", f"-I{ROOT / 'csrc'}", str(source)]
        done = subprocess.run([*command, "-o", f"{folder}/out.cubin"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return {f"{name} sm_{arch}": found for name, found in parse(done.stderr).items()}


def parse(log: str) -> dict[str, Resources]:
    """What each kernel takes, from the words of `ptxas -v`: registers of a thread, static shared memory of
    a block, stack and spills in bytes.
    """
    pattern = (
        r"Compiling entry function '(\S+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers([^\n]*)"
    )
    found: dict[str, Resources] = {}
    for symbol, stack, stores, loads, registers, rest in re.findall(pattern, log, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[readable(symbol)] = {
            "registers": int(registers),
            "shared": int(shared[1]) if shared else 0,
            "stack": int(stack),
            "spills": int(stores) + int(loads),
        }
    return found


def readable(symbol: str) -> str:
    """The op, kernel and template arguments in a mangled name: "propagate::panel_forward<float>"."""
    parts, rest = [], symbol.removeprefix("_ZN")
    while match := re.match(r"(\d+)", rest):
        length, start = int(match[1]), match.end()
        parts.append(rest[start : start + length])
        rest = rest[start + length :]
    arguments = re.match(r"I(.*?)EEv", rest)
    names = {"f": "float", "d": "double", "Lb0E": "false", "Lb1E": "true"}
    listed = re.findall(r"Lb[01]E|[fd]", arguments[1] + "E" if arguments else "")
    name = "::".join(p for p in parts if p not in ("cvf", "cuda"))
    return f"{name}<{', '.join(names[a] for a in listed)}>"


def build() -> dict[str, Resources]:
    found: dict[str, Resources] = {}
    for source in sources():
        for arch in ARCHITECTURES:
            found |= compile_source(source, arch)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the baseline")
    options = parser.parse_args()
    found = build()
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(found.items())]
    text = ",\n".join(lines)
    if options.write:
        head = f'"fingerprint": "{current()}",\n"nvcc": "{release()}",\n"kernels": {{\n'
        BASELINE.write_text("{\n" + head + text + "\n}\n}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
