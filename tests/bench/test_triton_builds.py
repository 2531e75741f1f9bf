"""Every configuration of the Triton kernels compiles, and takes what the committed baseline says."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
FILE = BENCH / "results" / "triton_builds.json"
BASELINE = json.loads(FILE.read_text()) if FILE.exists() else {}
VERSION = BASELINE.pop("triton", "none")
INSTALLED = importlib.util.find_spec("triton") is not None


def installed_version() -> str:
    return str(importlib.import_module("triton").__version__) if INSTALLED else "none"


pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason="Triton is not installed"),
    pytest.mark.skipif(not FILE.exists(), reason="no baseline: run bench/triton_builds.py --write"),
    pytest.mark.skipif(installed_version() != VERSION, reason=f"the baseline is of Triton {VERSION}"),
]


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_registers_shared_memory_and_spills(arch: int, tmp_path: Path) -> None:
    """In a process of its own: in this one, Triton interprets."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(BENCH.parent), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(BENCH / "triton_builds.py"), "--arch", str(arch)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    expected = {key: value for key, value in BASELINE.items() if key.endswith(f"sm_{arch}")}
    assert found.keys() == expected.keys(), "run bench/triton_builds.py --write, and look at what changed"
    spilling = {key: build for key, build in found.items() if build["spills"] > expected[key]["spills"]}
    assert not spilling
    assert found == expected


def test_the_baseline_has_no_spills_in_float32() -> None:
    assert [key for key, build in BASELINE.items() if " fp32 " in key and build["spills"]] == []
