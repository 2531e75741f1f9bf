"""Every configuration of the Triton kernels compiles, and takes what the committed baseline says."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
BASELINE: dict[str, Any] = json.loads((BENCH / "results" / "triton_builds.json").read_text())

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run(script: str, *arguments: str, cache: Path) -> str:
    """What it prints, in a process of its own: in this one, Triton interprets."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": f"{BENCH.parent}:{BENCH}", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_registers_shared_memory_and_spills(arch: int, tmp_path: Path) -> None:
    """Compiles all if the sources or Triton have changed, and one of each kernel if the baseline is of them."""
    script = f"""
import json, triton_builds as builds
changed = builds.current() != {BASELINE["fingerprint"]!r}
launches = builds.build([{arch}], one_of_each_kernel=not changed)
print(json.dumps([changed, launches]))
"""
    changed, found = json.loads(run(script, cache=tmp_path).splitlines()[-1])
    assert len(found) > 10
    version = importlib.import_module("triton").__version__
    expected = {key: value for key, value in BASELINE["builds"].items() if key.endswith(f"sm_{arch}")}
    if changed:
        assert found.keys() == expected.keys(), "run bench/triton_builds.py --write, and look at what changed"
    spilling = {key: build for key, build in found.items() if build["spills"] > expected[key]["spills"]}
    assert not spilling
    if version == BASELINE["triton"]:
        assert found == {key: expected[key] for key in found}, "run bench/triton_builds.py --write"


def test_the_baseline_has_no_spills_in_float32() -> None:
    assert [key for key, build in BASELINE["builds"].items() if " fp32 " in key and build["spills"]] == []
