"""FusedOp itself, and the checks that every op has to pass, at `sem_kl`."""

import pytest
import torch
from checks import each_jac, each_posterior
from fused_checks import check_in_pytorch
from inputs import sem_inputs

from causalvae_fast.ops import backends
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.sem_kl.autograd import sem_kl_op


@each_jac
@each_posterior
def test_sem_kl_in_pytorch(posterior: str, jac: str) -> None:
    check_in_pytorch(sem_kl_op, sem_inputs(3, 4, posterior, jac))


def test_an_op_makes_itself_known() -> None:
    assert backends()["sem_kl"].keys() == {"reference", "cpu"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduction_is_that_of_the_op(reduction: str) -> None:
    inputs = sem_inputs(3, 4)
    expected = getattr(sem_kl_op(*inputs), reduction)()
    torch.testing.assert_close(sem_kl_op.reduce(inputs, reduction), expected)
    assert isinstance(sem_kl_op, FusedOp)
