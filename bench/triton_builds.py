"""What the Triton kernels compile to, without a GPU: registers, shared memory and spills of each configuration.

    python bench/triton_builds.py            # print it, as tests/bench/test_triton_builds.py reads it
    python bench/triton_builds.py --write    # replace bench/results/triton_builds.json: three to four minutes

The baseline holds a fingerprint of the sources and of Triton's version. Where it fits, nothing has to be compiled
again.

Launches are recorded by running the launchers on tensors without memory, so that what is compiled is what a call
would launch: the same types, the same constants, the same alignment.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from fingerprint import fingerprint
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "bench" / "results" / "triton_builds.json"
ARCHITECTURES = (80, 90, 100)
DTYPES = {torch.float32: "fp32", torch.float64: "fp64"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Launch(NamedTuple):
    """One launch of a kernel: its grid, arguments by name, and options of the compiler."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]

    def key(self, arch: int) -> str:
        """Names what it compiles to: the kernel, dtype, constants, warps, stages, what is None, architecture."""
        constants = {
            k: v
            for k, v in self.arguments.items()
            if isinstance(v, (bool, str)) or (k.isupper() and isinstance(v, int))
        }
        parts = [f"{k}={v}" for k, v in {**constants, **self.options}.items()]
        parts += [f"no-{k}" for k, v in self.arguments.items() if v is None]
        return " ".join([self.kernel.__name__, self.dtype, *parts, f"sm_{arch}"])

    @property
    def dtype(self) -> str:
        return next(DTYPES[a.dtype] for a in self.arguments.values() if isinstance(a, Tensor))


class _Recorder:
    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            options = {k: kwargs.pop(k) for k in ("num_warps", "num_stages")}
            arguments = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
            assert arguments.keys() == set(self.kernel.arg_names)
            self.launches.append(Launch(self.kernel, grid, arguments, options))

        return launch


@contextmanager
def recorded(module: ModuleType) -> Iterator[list[Launch]]:
    """The launches of the kernels of a launcher's module, which are not carried out."""
    launches: list[Launch] = []
    kernels = {name: kernel for name, kernel in vars(module).items() if name.endswith("_kernel")}
    try:
        for name, kernel in kernels.items():
            setattr(module, name, _Recorder(kernel, launches))
        yield launches
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)


def sem_kl_launches(
    batch: int,
    d: int,
    full: bool,
    dtype: torch.dtype = torch.float32,
    *,
    shared: bool = False,
    packed: bool = False,
    gradients: bool = True,
) -> list[Launch]:
    """The launches of one call of `sem_kl`."""
    module = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")

    def tensor(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    matrix = (d * (d + 1) // 2,) if packed else (d, d)
    jac = tensor(*(() if shared else (batch,)), *matrix)
    factor = tensor(batch, *matrix) if full else tensor(batch, d)
    with recorded(module) as launches:
        module.sem_kl_triton(
            jac, tensor(batch, d), tensor(d), tensor(batch, d), factor,
            packed_jac=packed, packed_scale_tril=packed and full, upstream=tensor(batch), wanted=(gradients,) * 5,
        )  # fmt: skip
    return launches


def pivot_kl_launches(
    batch: int, pivots: int, d: int, full: bool, dtype: torch.dtype, reduce: str
) -> list[Launch]:
    """The launches of one call of `pivot_kl`, and of its backward pass."""
    module = importlib.import_module("causalvae_fast.ops.pivot_kl.triton_kernel")

    def tensor(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    factor = tensor(batch, d, d) if full else tensor(batch, d)
    inputs = (tensor(pivots, d, d), tensor(pivots, d), tensor(d), tensor(batch, d), factor)
    kept = {"value": tensor(batch), "index": torch.empty(batch, dtype=torch.int64, device="meta")}
    upstream = tensor(batch, pivots) if reduce == "none" else tensor(batch)
    with recorded(module) as launches:
        module.pivot_kl_triton(*inputs, reduce=reduce)
        module.pivot_kl_triton_backward(*inputs, reduce=reduce, upstream=upstream, **kept)
    return launches


def mlp_sem_kl_launches(
    batch: int,
    d: int,
    hidden: int,
    posterior: str,
    dtype: torch.dtype = torch.float32,
    *,
    activation: str = "tanh",
    gradients: bool = True,
    learns_edges: bool = True,
) -> list[Launch]:
    """The launches of one call of `mlp_sem_kl`, without those of `sem_kl` for a full posterior."""
    module = importlib.import_module("causalvae_fast.ops.mlp_sem_kl.triton_kernel")
    linear = importlib.import_module("causalvae_fast.ops.sem_kl.triton_kernel")

    def tensor(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    factors = {"diagonal": (d,), "full": (d, d), "packed": (d * (d + 1) // 2,)}
    inputs = [(batch, d), (d, hidden, d), (d, hidden), (d, hidden), (d,), (d, d), (d,), (batch, d)]
    with recorded(module) as launches, recorded(linear):
        module.mlp_sem_kl_triton(
            activation, *(tensor(*shape) for shape in [*inputs, (batch, *factors[posterior])]),
            packed_scale_tril=posterior == "packed", upstream=tensor(batch) if gradients else "none",
            wanted=[gradients and (k != 5 or learns_edges) for k in range(9)],
        )  # fmt: skip
    return launches


def compile_launch(launch: Launch, arch: int) -> Any:
    """The kernel, compiled as a launch with these arguments would."""
    signature, constants, attributes = {}, {}, {}
    for k, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments[name]
        if isinstance(value, Tensor):
            signature[name] = "*" + DTYPES.get(value.dtype, "i64")
        elif isinstance(value, int) and not isinstance(value, bool) and not name.isupper() and value != 1:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
        else:
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, Tensor) or value % 16 == 0:
            attributes[(k,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch.options)


def resources(compiled: Any) -> dict[str, int]:
    """Registers of a thread, bytes of shared memory of a program, bytes that spill from registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    return {"registers": registers, "shared": compiled.metadata.shared, "spills": stack + local}


def current() -> str:
    """The fingerprint of what decides what is compiled, and to what."""
    kernels = ROOT.glob("causalvae_fast/ops/**/*triton*.py")
    return fingerprint([*kernels, Path(__file__)], triton.__version__)


def every_launch() -> dict[str, Launch]:
    """One launch of every configuration and variant, by what distinguishes them; those with gradients first."""
    found = []
    for dtype, sizes in ((torch.float32, (8, 16, 32, 64, 128, 512)), (torch.float64, (8, 16, 64, 128))):
        for d, full in itertools.product(sizes, (False, True)):
            found += sem_kl_launches(256, d, full, dtype)
            found += sem_kl_launches(256, d, full, dtype, gradients=False)
            found += sem_kl_launches(256, d, full, dtype, shared=True)
        for d, full, reduce in ((16, True, "logsumexp"), (64, True, "logsumexp"), (64, False, "logsumexp")):
            found += pivot_kl_launches(256, 32, d, full, dtype, reduce)
    for d, full in ((16, True), (64, True), (128, True), (256, True), (128, False)):
        found += sem_kl_launches(256, d, full, packed=True)
    for batch, dtype in itertools.product((1, 16), DTYPES):  # too few for panels, or for those of rows
        found += sem_kl_launches(batch, 512, True, dtype)
        found += sem_kl_launches(batch, 512, True, dtype, packed=True)
    for full, reduce in itertools.product((False, True), ("none", "min")):
        found += pivot_kl_launches(256, 32, 64, full, torch.float32, reduce)
    for dtype, hidden, posterior in itertools.product(DTYPES, (16, 32, 64), ("diagonal", "full")):
        found += mlp_sem_kl_launches(256, 64, hidden, posterior, dtype)
    for activation in ("silu", "softplus", "leaky_relu"):
        found += mlp_sem_kl_launches(256, 64, 16, "diagonal", activation=activation)
    for posterior in ("diagonal", "full"):
        found += mlp_sem_kl_launches(256, 64, 16, posterior, learns_edges=False)
        found += mlp_sem_kl_launches(256, 64, 16, posterior, gradients=False)
    launches: dict[str, Launch] = {}
    for launch in found:
        launches.setdefault(launch.key(0), launch)
    return launches


def one_of_each_configuration(launches: Iterable[Launch]) -> list[Launch]:
    """The first launch of each kernel with given tiles, warps and stages."""
    chosen: dict[tuple[Any, ...], Launch] = {}
    for launch in launches:
        tiles = {k: v for k, v in launch.arguments.items() if k.isupper() and isinstance(v, int)}
        configuration = (launch.kernel.__name__, launch.dtype, *tiles.items(), *launch.options.items())
        chosen.setdefault((*configuration, launch.arguments.get("full")), launch)
    return list(chosen.values())


def build(
    architectures: Iterable[int] = ARCHITECTURES, *, one_of_each_kernel: bool = False
) -> dict[str, dict[str, int]]:
    """What each configuration takes: for sm_90 in every variant, for others in one; or one of each kernel."""
    launches = list(every_launch().values())
    found = {}
    for arch in architectures:
        chosen = launches if arch == 90 else one_of_each_configuration(launches)
        if one_of_each_kernel:
            chosen = list({launch.kernel.__name__: launch for launch in reversed(chosen)}.values())
        for launch in chosen:
            found[launch.key(arch)] = resources(compile_launch(launch, arch))
            print(launch.key(arch), found[launch.key(arch)], file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the baseline")
    parser.add_argument("--arch", type=int, nargs="*", default=ARCHITECTURES, help="print those of these alone")
    options = parser.parse_args()
    if options.write and options.arch != ARCHITECTURES:
        parser.error("the baseline is written for all architectures: leave --arch out")
    found = build(options.arch)
    if options.write:
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(found.items())]
        head = f'"fingerprint": "{current()}",\n"triton": "{triton.__version__}",\n"builds": {{\n'
        BASELINE.write_text("{\n" + head + ",\n".join(lines) + "\n}\n}\n")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET must not be set: the interpreter compiles nothing")
    main()
