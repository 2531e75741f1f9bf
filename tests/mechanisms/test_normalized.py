"""Normalised outputs: statistics of the batch in training, running ones in evaluation and for causal queries."""

import pytest
import torch
from mechanism_cases import mlp, normal
from torch import nn
from torch.testing import assert_close

from causalvae_fast import SEMPrior
from causalvae_fast.mechanisms import (
    CallableMechanism,
    LinearMechanism,
    Mechanism,
    NormalizedMechanism,
    TemporalMechanism,
)
from causalvae_fast.mechanisms.normalized import OutputNorm


def make(d: int = 4) -> tuple[NormalizedMechanism, Mechanism]:
    torch.manual_seed(0)
    inner = mlp(d).double()
    return NormalizedMechanism(inner).double(), inner


def test_against_batch_norm() -> None:
    mechanism, inner = make()
    norm = nn.BatchNorm1d(4, affine=False).double()
    for seed in range(5):
        z = normal(30, 4, seed=seed)
        assert_close(mechanism(z)[:, 1:], norm(inner(z))[:, 1:])
    mechanism.eval()
    norm.eval()
    assert_close(mechanism(z)[:, 1:], norm(inner(z))[:, 1:])


def test_scale_is_fixed_and_roots_are_left_alone() -> None:
    mechanism, inner = make()
    z = normal(50, 4)
    value = mechanism(z)
    assert_close(value[:, 1:].std(0, correction=0), torch.ones(3).double(), rtol=1e-3, atol=0)
    assert torch.equal(value[:, 0], inner(z)[:, 0])
    with torch.no_grad():
        inner.w_out.mul_(7)
    assert_close(mechanism(z)[:, 1:], value[:, 1:], rtol=1e-3, atol=1e-3)


def test_factor_in_the_jacobian() -> None:
    mechanism, inner = make()
    z = normal(30, 4)
    value, jac = inner.linearize(z)
    deviation = (value.var(0, correction=0) + 1e-5).sqrt()
    deviation[0] = 1
    assert_close(mechanism.linearize(z)[1], jac / deviation.unsqueeze(-1))
    for form in (mechanism.expand(z), super(NormalizedMechanism, mechanism).expand(z)):
        assert_close(form[0], jac / deviation.unsqueeze(-1))
        assert_close((form[0] @ z.unsqueeze(-1)).squeeze(-1) + form[1], mechanism(z))
    mechanism.eval()
    running = (mechanism.norm.running_var + 1e-5).sqrt()
    running[0] = 1
    assert_close(mechanism.linearize(z)[1], jac / running.unsqueeze(-1))


def test_a_linear_mechanism_keeps_one_jacobian() -> None:
    mechanism = NormalizedMechanism(LinearMechanism(4, init_std=1.0)).double()
    jac, offset = mechanism.expand(normal(9, 4))
    assert jac.shape == (4, 4)
    assert offset.shape == (4,)


def test_queries_use_the_running_statistics_in_training() -> None:
    mechanism, _ = make()
    mechanism(normal(30, 4))
    mean, z = mechanism.norm.running_mean.clone(), normal(30, 4)
    noise = mechanism.abduct(z)
    assert_close(mechanism.solve(noise), z)
    assert torch.equal(mechanism.norm.running_mean, mean)
    assert not torch.allclose(noise, z - mechanism(z))


def test_gradients_go_through_the_statistics() -> None:
    mechanism, inner = make()
    z = normal(6, 4).requires_grad_()
    momentum = mechanism.norm.momentum
    assert momentum == 0.1
    assert torch.autograd.gradcheck(lambda z, *_: mechanism(z), (z, *inner.parameters()), fast_mode=True)


def test_one_sample_takes_the_running_statistics() -> None:
    mechanism, _ = make()
    mechanism(normal(30, 4))
    z, before = normal(1, 4), mechanism.norm.running_mean.clone()
    assert torch.equal(mechanism(z), mechanism.eval()(z))
    assert torch.equal(mechanism.norm.running_mean, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_statistics_have_the_dtype_and_device_of_the_mechanism(dtype: torch.dtype) -> None:
    mechanism = NormalizedMechanism(mlp(4).to(dtype))
    assert mechanism.norm.running_mean.dtype == mechanism.norm.running_var.dtype == dtype
    mechanism(torch.randn(5, 4, dtype=dtype)).sum().backward()
    assert mechanism.norm.running_mean.any()
    elsewhere = OutputNorm(torch.ones(3, dtype=torch.bool), like=torch.empty((), dtype=dtype, device="meta"))
    assert all(buffer.is_meta for buffer in elsewhere.buffers())


def test_a_prior_in_float64_is_trained() -> None:
    prior = SEMPrior(NormalizedMechanism(mlp(4).double()), log_sigma=torch.zeros(4).double())
    z = normal(9, 4)
    prior.kl(z, scale=z.exp(), reduction="mean").backward()
    assert prior.mechanism.norm.running_mean.any()


def test_a_function_without_parameters_has_statistics_of_the_default_dtype() -> None:
    mechanism = NormalizedMechanism(CallableMechanism(lambda z: torch.cat([0 * z[:, :1], z[:, :1].sin()], 1), 2))
    assert mechanism.norm.running_mean.dtype == torch.get_default_dtype()


def test_a_temporal_mechanism_is_normalised_inside() -> None:
    temporal = TemporalMechanism(LinearMechanism(4), frames=3, latents=2)
    with pytest.raises(ValueError, match=r"TemporalMechanism\(NormalizedMechanism\(g\), frames, latents\)"):
        NormalizedMechanism(temporal)


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match="mechanism must be a Mechanism, got int"):
        NormalizedMechanism(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum must be above 0 and at most 1, got 0"):
        NormalizedMechanism(LinearMechanism(2), momentum=0)
    with pytest.raises(ValueError, match="eps must be above 0, got 0"):
        NormalizedMechanism(LinearMechanism(2), eps=0)
