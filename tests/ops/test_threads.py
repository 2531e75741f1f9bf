"""Every op on several threads, from several threads at once, and in a forked child."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from checks import each_dtype, same_bits
from every_op import OPS, cases
from tolerances import RELATIVE, gradient_error
from torch import Tensor

from causalvae_fast import ops

CALLERS = 8
ROUNDS = 3  # of all cases, by each caller

each_op = pytest.mark.parametrize("op", OPS)


def test_no_op_is_forgotten() -> None:
    assert set(OPS) == set(ops.backends())


@each_op
@pytest.mark.parametrize(("threads", "dtype"), [(1, torch.float64), (2, torch.float32)])
def test_calls_from_many_threads_at_once(threads: int, dtype: torch.dtype, op: str) -> None:
    """Eight threads that call the same ops with the same tensors at once get the bits that one gets."""
    torch.set_num_threads(threads)
    every = list(cases(op, dtype))
    expected = [case.run() for case in every]
    start = threading.Barrier(CALLERS)

    def caller(number: int) -> list[str]:
        assert torch.get_num_threads() == threads
        start.wait()
        wrong = []
        for step in range(ROUNDS * len(every)):
            k = (step + number * len(every) // CALLERS) % len(every)  # everyone begins elsewhere
            if not same_bits(every[k].run(), expected[k]):
                wrong.append(str(every[k]))
        return wrong

    with ThreadPoolExecutor(CALLERS) as pool:
        wrong = [name for found in pool.map(caller, range(CALLERS)) for name in found]
    assert not wrong


@each_op
@each_dtype
def test_two_threads_against_one(dtype: torch.dtype, op: str) -> None:
    """What belongs to a sample is the same to the bit; sums over the batch are within tolerance, and the same in
    every run.
    """
    for case in cases(op, dtype):
        torch.set_num_threads(1)
        alone = case.run()
        torch.set_num_threads(2)
        together = case.run()
        for (owned, found), expected in zip(case.owned(together), alone, strict=True):
            error = difference(found, expected)
            assert error <= (0 if owned else RELATIVE[dtype]), f"{case}: {error:.1e}"
        assert same_bits(together, case.run()), f"{case}: two runs differ"


def difference(found: Tensor, expected: Tensor) -> float:
    if found.is_floating_point():
        return gradient_error(found, expected, batched=False)
    return float((found != expected).sum())


# The child gets the bits of one thread. It calls every op while torch, and so what is handed to the kernels, is
# still set to two threads. Only the comparison after it is on one: torch's own operations hang in a child whose
# parent used two. What threads do to a child does not depend on the dtype, and what a thread of a busy parent may
# hold not on the kernel.
FORK = """
import faulthandler, os, sys, threading
sys.path.insert(0, {tests!r})
import torch
from every_op import every_case
from checks import same_bits

small, large = (every_case((d,), (torch.float32,)) for d in (16, 72))
ones = torch.ones(1 << 22)
torch.set_num_threads(1)
expected = {{str(case): case.run(ones) for case in small + large}}
torch.set_num_threads(2)
for case in small + large:
    case.run(ones)

def child_gets_the_same(every):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(30, exit=True)  # rather than hang
        found = [case.run(ones) for case in every]
        torch.set_num_threads(1)
        wrong = [str(c) for c, f in zip(every, found) if not same_bits(f, expected[str(c)])]
        print("differs in the child:", wrong) if wrong else None
        sys.stdout.flush()
        os._exit(len(wrong) > 0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status

child_gets_the_same(small + large)

stop = threading.Event()
def work():
    while not stop.is_set():
        for case in small:
            case.run(ones)
callers = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for caller in callers:
    caller.start()
for _ in range(3):
    child_gets_the_same(small)
stop.set()
for caller in callers:
    caller.join()
for case in small + large:  # the parent still has its threads
    case.run(ones)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child() -> None:
    """The pool of threads of the parent, quiet or busy, does not exist in the child, which must not wait for it;
    nor for a lock that a thread of the parent held.
    """
    script = FORK.format(tests=str(Path(__file__).parent))
    # Where there is a GPU, autograd starts threads for it and then refuses to run in a child.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=99,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
