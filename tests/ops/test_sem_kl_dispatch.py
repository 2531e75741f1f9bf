"""sem_kl where tensors are not plain: dependent inputs, modes without memory, tracing, negative views, devices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from causalvae_fast.ops import sem_kl

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def inputs() -> Inputs:
    """jac (4, 3, 3), offset (4, 3), log_sigma (3,), loc (4, 3), scale (4, 3), in float64."""
    jac, offset, loc = torch.randn(4, 3, 3), torch.randn(4, 3), torch.randn(4, 3)
    values = (jac, offset, 0.1 * torch.randn(3), loc, torch.rand(4, 3) + 0.5)
    return tuple(t.double() for t in values)  # type: ignore[return-value]


def kl(inputs: Inputs, loc: Tensor, backend: str = "cpu", reduction: str = "none", **other: Tensor) -> Tensor:
    jac, offset, log_sigma, _, scale = inputs
    offset, scale = other.get("offset", offset), other.get("scale", scale)
    return sem_kl(jac, offset, log_sigma, loc, scale=scale, reduction=reduction, backend=backend)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "dependents",
    [lambda x: {"scale": x.abs() + 0.1}, lambda x: {"offset": x.sin()}, lambda x: {"offset": x}],
    ids=["scale", "offset", "the same tensor"],
)
def test_gradients_of_inputs_that_depend_on_each_other(
    inputs: Inputs, dependents: Callable[[Tensor], dict[str, Tensor]], reduction: str, create_graph: bool
) -> None:
    def gradient(backend: str) -> Tensor:
        x = inputs[3].clone().requires_grad_()
        value = kl(inputs, x, backend, reduction, **dependents(x)).sum()
        return torch.autograd.grad(value, x, create_graph=create_graph)[0]

    torch.testing.assert_close(gradient("cpu"), gradient("reference"))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_of_a_batch_of_upstreams(inputs: Inputs, reduction: str) -> None:
    x = inputs[3].clone().requires_grad_()

    def gradients(backend: str) -> tuple[Tensor, Tensor]:
        y = kl(inputs, x, backend, reduction)
        upstreams = torch.linspace(1, 2, 2 * y.numel()).double().reshape(2, *y.shape)
        mapped = torch.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(upstreams)
        return mapped, torch.autograd.grad(y, x, upstreams, is_grads_batched=True)[0]

    torch.testing.assert_close(gradients("cpu"), gradients("reference"))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_forward_mode(inputs: Inputs, reduction: str) -> None:
    def tangent(backend: str) -> Tensor:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(inputs[3], torch.ones_like(inputs[3]))
            return forward_ad.unpack_dual(kl(inputs, dual, backend, reduction)).tangent

    torch.testing.assert_close(tangent("cpu"), tangent("reference"))


def test_negative_views(inputs: Inputs) -> None:
    view = torch._neg_view(inputs[3])
    torch.testing.assert_close(kl(inputs, view), kl(inputs, -inputs[3]))


def test_negative_upstream(inputs: Inputs) -> None:
    """The gradient of the imaginary part of a conjugate arrives as a view with the negative bit."""

    def gradient(backend: str) -> Tensor:
        x = inputs[3].clone().requires_grad_()
        value = kl(inputs, x, backend)
        (torch.complex(torch.zeros_like(value), value).conj() * 1j).real.sum().backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(gradient("cpu"), gradient("reference"))


def test_the_default_device_does_not_matter(inputs: Inputs) -> None:
    with torch.device("meta"):
        assert torch.equal(kl(inputs, inputs[3]), kl(inputs, inputs[3]))
    assert kl(inputs, inputs[3]).device.type == "cpu"


def test_fake_tensors(inputs: Inputs) -> None:
    with FakeTensorMode() as mode:
        jac, offset, log_sigma, loc, scale = (mode.from_tensor(t) for t in inputs)
        value = sem_kl(jac, offset, log_sigma, loc, scale=scale)
    assert value.shape == (4,)


def test_tracing_keeps_the_op(inputs: Inputs) -> None:
    def function(loc: Tensor) -> Tensor:
        return kl(inputs, loc)

    other = inputs[3] + 1
    for traced in (make_fx(function)(inputs[3]), torch.jit.trace(function, (inputs[3],))):
        torch.testing.assert_close(traced(other), function(other))


def test_vmap_over_nothing(inputs: Inputs) -> None:
    assert torch.func.vmap(lambda x: kl(inputs, x))(inputs[3].new_zeros(0, 4, 3)).shape == (0, 4)
