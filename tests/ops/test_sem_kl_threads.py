"""`sem_kl` on several threads, from several threads, and in a forked child."""

import itertools
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checks import ALL, ONE_PER_KERNEL, check_gradients, each_jac, each_posterior, same_bits, value_and_gradients
from inputs import POSTERIORS, SHARING, SEMInputs, sem_inputs, true_sem_kl, upstream_gradient
from torch import Tensor

from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu


def large_inputs(posterior: str, jac: str, d: int) -> tuple[SEMInputs, Tensor]:
    """Enough work for four threads."""
    batch = 4_100_000 // d ** (2 if posterior == "diagonal" else 3)
    return sem_inputs(batch, d, posterior, jac, dtype=torch.float32), upstream_gradient(batch, torch.float32)


@each_posterior
@each_jac
@pytest.mark.parametrize("d", [24, 64])
def test_number_of_threads(d: int, jac: str, posterior: str) -> None:
    inputs, upstream = large_inputs(posterior, jac, d)
    _, expected_gradients = true_sem_kl(inputs, upstream)
    alone = value_and_gradients(inputs, upstream)
    for threads in (2, 4):
        torch.set_num_threads(threads)
        several = value_and_gradients(inputs, upstream)
        check_gradients(several[1:], expected_gradients, inputs, f"{threads} threads")
        own = (True, *inputs.batched)
        assert same_bits(*zip(*(pair for pair, o in zip(zip(several, alone), own) if o)))  # noqa: B905
        assert same_bits(several, value_and_gradients(inputs, upstream)), "two runs differ"


def test_two_runs_give_the_same_bits() -> None:
    for posterior, jac, d in itertools.product(POSTERIORS, SHARING, ONE_PER_KERNEL):
        inputs, upstream = sem_inputs(17, d, posterior, jac), upstream_gradient(17, torch.float64)
        assert same_bits(value_and_gradients(inputs, upstream), value_and_gradients(inputs, upstream))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child() -> None:
    """The pool of threads of the parent does not exist in the child, which must not wait for it."""
    inputs, upstream = large_inputs("full", "per_sample", 64)
    torch.set_num_threads(2)
    expected = value_and_gradients(inputs, upstream)

    def child() -> None:
        value, gradients = sem_kl_cpu(*inputs, upstream=upstream, wanted=ALL)
        torch.set_num_threads(1)  # torch's own operations hang in a child whose parent used two
        # Sums over the batch depend on the number of threads.
        own = (True, *inputs.batched)
        assert same_bits(*zip(*(pair for pair, o in zip(zip([value, *gradients], expected), own) if o)))  # noqa: B905

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=30)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode == 0


def test_calls_from_several_threads_at_once() -> None:
    cases = [large_inputs(*case) for case in itertools.product(POSTERIORS, SHARING, (24,))]
    expected = [value_and_gradients(*case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda case: value_and_gradients(*case), cases * 3))
    for result, alone in zip(results, expected * 3, strict=True):
        assert result[0].shape == alone[0].shape
        assert torch.equal(result[0], alone[0])
        assert torch.equal(result[4], alone[4])
