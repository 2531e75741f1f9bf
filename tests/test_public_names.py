"""What is there after `import causalvae_fast as cvf`."""

import subprocess
import sys

import pytest

import causalvae_fast as cvf

LAZY = ["data", "figures", "metrics"]


def test_subpackages_are_imported_when_asked_for() -> None:
    program = f"""
import sys
import causalvae_fast as cvf
loaded = [name for name in {LAZY} if "causalvae_fast." + name in sys.modules]
assert not loaded, loaded
for name in {LAZY}:
    assert name in dir(cvf), name
    assert getattr(cvf, name) is sys.modules["causalvae_fast." + name]
print(cvf.metrics.mcc.__name__, cvf.data.make_ovals.__name__, cvf.figures.draw_graph.__name__)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == ("mcc make_ovals draw_graph\n", "")


def test_every_public_name_is_there_and_listed() -> None:
    for name in [*cvf.__all__, *LAZY]:
        assert getattr(cvf, name) is not None
        assert name in dir(cvf)


def test_other_names_are_errors_as_usual() -> None:
    assert not hasattr(cvf, "metric")
    with pytest.raises(AttributeError, match="module 'causalvae_fast' has no attribute 'metric'"):
        cvf.metric  # noqa: B018
