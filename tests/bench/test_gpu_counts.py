"""What the model of the GPU kernels counts, against what one counts by hand."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import gpu_count_triton
import h100
import pytest
import torch
from gpu_count_cuda import ADDED_UP, Call, launches, program
from gpu_kept import Kept

SECTOR = h100.SECTOR

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def traffic() -> Iterator[Path]:
    if shutil.which("g++") is None:
        pytest.skip("g++, whose instrumentation counts loads and stores, is not on the PATH")
    with program() as path:
        yield path


def test_bytes_of_a_cuda_kernel(traffic: Path) -> None:
    """One sample of eight nodes: a row of a matrix, or a vector, is a sector. Row 0 of jac is not read."""
    (launch,) = launches(traffic, Call("propagate", "forward", 1, 8))
    assert launch.kernel == "propagate::small_forward<float>"
    assert launch.dram == ((7 + 2) + (8 + 1)) * SECTOR  # jac, offset, log_sigma; scale_tril, loc
    assert launch.l2 == launch.dram


def test_steps_of_a_cuda_kernel(traffic: Path) -> None:
    """64 nodes are two panels of two tiles. The first panel's block goes through three tiles of jac: two on the
    diagonal with two barriers around the load and two around the store, one more with two barriers.
    """
    (launch,) = launches(traffic, Call("propagate", "forward", 1, 64))
    assert (launch.blocks, launch.threads) == (2, 256)
    assert launch.barriers == 2 * (2 + 2) + 2
    assert launch.exchanges == 2 * 64  # substitutions of a warp's columns, and of the mean
    assert launch.shared == launch.conflict_free


def test_bank_conflicts_of_a_cuda_kernel(traffic: Path) -> None:
    """The product of a backward pass has its panel transposed, with rows 36 words apart: eight banks of 32."""
    call = Call("propagate", "backward", 1, 64, options=("jac",))
    product = {launch.kernel: launch for launch in launches(traffic, call)}["propagate::panel_product<float>"]
    panels = 1 + (1 + 2)  # of the first row of tiles, and of the second
    assert product.shared - product.conflict_free == panels * 32 * (
        4 - 1
    )  # 32 stores of a warp, four words in a bank


def test_a_batch_is_what_small_ones_grow_to(traffic: Path) -> None:
    whole = launches(traffic, Call("propagate", "forward", 128, 8))
    grown = launches(traffic, Call("propagate", "forward", 128, 8, alike=(32, 64)))
    assert [x.blocks for x in whole] == [x.blocks for x in grown] == [4]
    for name in ADDED_UP:
        assert [getattr(x, name) for x in whole] == [getattr(x, name) for x in grown]


@needs_triton
def test_bytes_of_a_triton_kernel() -> None:
    """One sample of sixteen nodes: rows are two sectors; those up to the ninth need one, the first none."""
    (count,) = gpu_count_triton.sem_kl(False, False, False, 1, 16)
    jac, vectors, value = 8 + 2 * 7, 4 * 2, 1
    assert count.dram == count.l2 == (jac + vectors + value) * SECTOR


@needs_triton
def test_what_a_batch_shares_is_apart() -> None:
    """32 samples of 16 nodes against two pivots, each in a part of its own."""
    (count,), samples = gpu_count_triton.pivot_kl(False, False, 32, 2, 16, "none")
    assert samples == 32
    assert count.shared == (2 * (8 + 2 * 7) + 2 * 2 + 2) * SECTOR  # jac, offset, log_sigma
    assert count.dram - count.shared == (2 * 32 * 2 + 32 * 2 * 4 // SECTOR) * SECTOR  # loc and scale, out


def test_operations_of_torch() -> None:
    """An operation reads its operands, what is expanded once, and writes its result; views are free."""
    a, b = torch.zeros(4, 8, device="meta"), torch.zeros(8, device="meta")
    with gpu_count_triton.Operations() as operations:
        (a * b.expand(4, 8)).mT.reshape(8, 4)
    assert operations.number == 1
    assert operations.bytes == 4 * (4 * 8 + 8 + 4 * 8)


def test_counts_are_kept_while_they_are_of_the_same(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    assert Kept(path, "cuda", "a").get("x", lambda: [1]) == [1]
    assert Kept(path, "triton", "c").get("x", lambda: [5]) == [5]
    assert Kept(path, "cuda", "a").get("x", lambda: [2]) == [1]
    assert Kept(path, "cuda", "b").get("x", lambda: [3]) == [3]
    assert Kept(path, "triton", "c").get("x", lambda: [6]) == [5]


def test_occupancy_is_that_of_what_is_scarcest() -> None:
    assert h100.occupancy(registers=32, shared=0, warps=8) == 8  # warps
    assert h100.occupancy(registers=128, shared=0, warps=8) == 2  # registers
    assert h100.occupancy(registers=32, shared=75 << 10, warps=8) == 2  # shared memory
    assert h100.occupancy(registers=16, shared=0, warps=1) == 32  # blocks


def test_time_is_that_of_what_takes_longest() -> None:
    count = h100.Count("k", dram=3_000_000, shared=0, l2=11_000_000, flops=0, precision="-", programs=1)
    assert h100.seconds(count, 132, second_cache=False) == pytest.approx(132 * 1e-6)
    assert h100.seconds(count, 132, second_cache=True) == pytest.approx(132 * 2e-6)
    product = count._replace(dram=0, flops=400e12 / 3, precision="tf32x3")
    assert h100.seconds(product, 66, second_cache=False) == pytest.approx(132)  # half the device is idle
