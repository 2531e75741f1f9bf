"""What this installation can do here: `causalvae-fast doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from typing import Any

import torch

import causalvae_fast
from causalvae_fast.ops import _cuda, _native, backends, sem_kl

_DEPENDENCIES = (
    *("torch", "numpy", "triton", "tyro", "rich", "safetensors", "accelerate", "joblib"),
    *("matplotlib", "networkx"),
)
_PARITY_SECONDS = 1.0


def examine() -> dict[str, Any]:
    """Versions, the compiled modules, backends of each op, threads, and a parity check of about one second."""
    return {
        "versions": _versions(),
        "cpu": _cpu_module(),
        "cuda": _cuda_module(),
        "threads": torch.get_num_threads(),
        "backends": {
            op: {name: {"available": s.available, "detail": s.detail} for name, s in statuses.items()}
            for op, statuses in backends().items()
        },
        "parity": _parity(),
    }


def doctor(as_json: bool = False) -> int:
    """Print what `examine` found, for people or as JSON. Returns the exit code: 1 if the parity check failed."""
    found = examine()
    print(json.dumps(found, indent=2) if as_json else _text(found))
    return 0 if found["parity"]["passed"] else 1


def _versions() -> dict[str, str]:
    versions = {"causalvae_fast": causalvae_fast.__version__, "python": platform.python_version()}
    for name in _DEPENDENCIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["platform"] = f"{platform.system()} {platform.machine()}"
    return versions


def _cpu_module() -> dict[str, Any]:
    try:
        module = _native.cpu()
    except _native.NotBuiltError as error:
        return {"available": False, "detail": str(error)}
    isas = module.isas()
    return {"available": True, "isa": isas[-1], "isas": isas, **module.build_info()}


def _cuda_module() -> dict[str, Any]:
    try:
        _cuda.check(None)
    except (_native.NotBuiltError, _cuda.NotUsableError) as error:
        return {"available": False, "detail": str(error)}
    return {"available": True, "detail": _cuda.detail()}


def _parity() -> dict[str, Any]:
    """The default backend of sem_kl against the reference in float64, on random problems for about a second."""
    generator = torch.Generator().manual_seed(0)
    largest, problems, start = 0.0, 0, time.perf_counter()
    while time.perf_counter() - start < _PARITY_SECONDS:
        d = int(torch.randint(1, 80, (), generator=generator))
        jac, factor = (torch.randn(5, d, d, generator=generator) / d**0.5 for _ in range(2))
        factor = factor.tril(-1) + torch.diag_embed(torch.rand(5, d, generator=generator) + 0.5)
        offset, loc = (torch.randn(5, d, generator=generator) for _ in range(2))
        inputs = (jac, offset, torch.zeros(d), loc)
        actual = sem_kl(*inputs, scale_tril=factor)
        expected = sem_kl(*(t.double() for t in inputs), scale_tril=factor.double(), backend="reference")
        error = ((actual.double() - expected).abs() / (expected.abs() + d)).max().item()
        largest, problems = max(largest, error), problems + 1
    return {"passed": largest < 1e-5, "largest_relative_error": largest, "problems": problems}


def _text(found: dict[str, Any]) -> str:
    lines = ["versions"]
    lines += [f"  {name:16} {version}" for name, version in found["versions"].items()]
    for module in ("cpu", "cuda"):
        lines.append(f"{module} module")
        lines += [f"  {name:16} {_plain(value)}" for name, value in found[module].items()]
    lines.append(f"threads            {found['threads']}")
    for op, statuses in found["backends"].items():
        lines.append(f"ops.{op}")
        for name, status in statuses.items():
            lines.append(
                f"  {name:16} {'available' if status['available'] else 'not available'}: {status['detail']}"
            )
    parity = found["parity"]
    verdict = "passed" if parity["passed"] else "FAILED"
    lines.append(
        f"parity             {verdict}: largest relative error {parity['largest_relative_error']:.1e} "
        f"on {parity['problems']} random problems (float32 against the reference in float64)"
    )
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)
