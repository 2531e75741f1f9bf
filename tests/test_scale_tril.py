"""The head for full covariances: a factor with a positive diagonal, dense or packed."""

import pytest
import torch

import causalvae_fast as cvf
from causalvae_fast.ops import pack_tril, unpack_tril


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_factor_with_a_positive_diagonal(d: int) -> None:
    outputs = 4 * torch.rand(7, d * (d + 1) // 2) - 2  # within the range
    factor = cvf.ScaleTril(d)(outputs)
    raw = unpack_tril(outputs)
    torch.testing.assert_close(factor.tril(-1), raw.tril(-1))
    torch.testing.assert_close(factor.diagonal(dim1=1, dim2=2), raw.diagonal(dim1=1, dim2=2).exp())
    assert not factor.triu(1).any()
    torch.testing.assert_close(cvf.ScaleTril(d, packed=True)(outputs), pack_tril(factor))


def test_it_starts_at_the_identity_and_stays_in_range() -> None:
    head = cvf.ScaleTril(3)
    assert torch.equal(head(torch.zeros(1, 6)), torch.eye(3).unsqueeze(0))
    extreme = torch.tensor([[1e4, -1e4, -1e4, 5.0, 5.0, torch.inf]], requires_grad=True)
    factor = head(extreme)
    torch.testing.assert_close(factor.diagonal(dim1=1, dim2=2), torch.tensor([[3.0, -8.0, 3.0]]).exp())
    factor.sum().backward()
    assert extreme.grad is not None
    assert torch.equal(extreme.grad, torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0, 0.0]]))


def test_the_prior_takes_it_dense_and_packed() -> None:
    prior = cvf.SEMPrior(cvf.LinearMechanism(4, init_std=0.5))
    loc, outputs = torch.randn(6, 4), torch.randn(6, 10)
    dense, packed = (cvf.ScaleTril(4, packed=p)(outputs) for p in (False, True))
    torch.testing.assert_close(prior.kl(loc, scale_tril=packed), prior.kl(loc, scale_tril=dense))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        cvf.ScaleTril(0)
    with pytest.raises(ValueError, match="log_range must be two increasing numbers"):
        cvf.ScaleTril(2, log_range=(1.0, 1.0))
    for shape in ((5, 4), (3,), (5, 2, 2)):
        with pytest.raises(ValueError, match=r"outputs must have shape \(B, 3\)"):
            cvf.ScaleTril(2)(torch.zeros(shape))


@pytest.mark.parametrize("d", [2.0, True, "2"])
def test_d_that_is_no_integer(d) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="d must be an integer, got "):
        cvf.ScaleTril(d)


def test_it_has_nothing_to_save() -> None:
    assert cvf.ScaleTril(3).state_dict() == {}
