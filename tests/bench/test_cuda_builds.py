"""What the CUDA kernels compile to: nothing spills that did not, and no kernel takes more than it did."""

import json

import cuda_builds
import pytest

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3cvf9propagate4cuda13panel_forwardIdEEvNS0_7ForwardIT_EEb' for 'sm_90'
ptxas info    : Function properties for _ZN3cvf9propagate4cuda13panel_forwardIdEEvNS0_7ForwardIT_EEb
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compiling entry function '_ZN3cvf16ancestral_sample4cuda12row_backwardIfLb1EEEvNS0_8BackwardIT_EEPS4_S6_' for 'sm_90'
ptxas info    : Function properties for _ZN3cvf16ancestral_sample4cuda12row_backwardIfLb1EEEvNS0_8BackwardIT_EEPS4_S6_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 62 registers, used 1 barriers
"""  # noqa: E501


def test_what_ptxas_says_is_read() -> None:
    assert cuda_builds.parse(LOG) == {
        "propagate::panel_forward<double>": {"registers": 48, "shared": 128, "stack": 8, "spills": 16},
        "ancestral_sample::row_backward<float, true>": {"registers": 62, "shared": 0, "stack": 0, "spills": 0},
    }


def test_builds_are_those_of_the_baseline() -> None:
    baseline = json.loads(cuda_builds.BASELINE.read_text())
    if baseline["fingerprint"] == cuda_builds.current():
        found = baseline["kernels"]
    elif cuda_builds.nvcc() is None:
        pytest.skip("the CUDA sources have changed, and nvcc is not on the PATH to say what they compile to")
    else:
        found = cuda_builds.build()
    known = baseline["kernels"]
    assert {key for key, r in found.items() if r["spills"] > known.get(key, {"spills": 0})["spills"]} == set()
    if cuda_builds.nvcc() is None or cuda_builds.release() == baseline["nvcc"]:
        assert found == known, "bench/cuda_builds.py --write replaces the baseline"


def test_blocks_fit_on_a_multiprocessor() -> None:
    """65,536 registers: a block of 256 threads may have 255 of them for each; two blocks of it 128."""
    kernels = json.loads(cuda_builds.BASELINE.read_text())["kernels"]
    assert {key for key, r in kernels.items() if r["registers"] > 128} == set()
