"""The tools of the benchmarks are imported from bench/, and the inputs of their cases from tests/ops/."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "tests" / "ops", ROOT / "bench"):
    sys.path.insert(0, str(folder))
