"""How tensors come to the kernels and from them: signatures of calls, outputs, and tensors that do not fit."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from inputs import sem_inputs
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from causalvae_fast.ops import _native
from causalvae_fast.ops._checks import remembered

x = torch.ones(2, 3)


class Subclass(Tensor):
    """Of which nobody knows where its values are."""


def test_signatures_are_equal_for_calls_that_are_alike() -> None:
    assert _native.signature((x, None, "mean")) == _native.signature((torch.zeros(3, 2).mT, None, "mean"))
    assert _native.signature((x,)) == _native.signature((torch.nn.Parameter(x),))
    calls = [
        (x,),
        (x.double(),),
        (x[0],),
        (x[:, :2],),
        (x, x),
        (x, None),
        (None, x),
        (x, "mean"),
        (x, "sum"),
        (x, True),
    ]
    calls += [(x.bool(),), (x.byte(),), (x, ""), (x, "n"), (x, "mean", None), (x, "me", "an")]
    assert None not in (signatures := [_native.signature(call) for call in calls])
    assert len(set(signatures)) == len(calls)


@pytest.mark.parametrize(
    "argument",
    [x.to_sparse(), x.to("meta"), x.as_subclass(Subclass), x.numpy(), 1, [x], "x" * 2000],
    ids=["sparse", "meta", "subclass", "array", "number", "list", "long"],
)
def test_what_has_no_signature(argument: object) -> None:
    assert _native.signature((x, argument)) is None


@pytest.mark.parametrize(
    "context",
    [
        lambda: torch.autocast("cpu", torch.bfloat16),
        FakeTensorMode,
        forward_ad.dual_level,
    ],
    ids=["autocast", "fake", "forward mode"],
)
def test_what_is_not_ordinary(context: Callable[[], AbstractContextManager[Any]]) -> None:
    assert _native.signature((x,)) is not None
    with context():
        assert _native.signature((x,)) is None


def test_what_is_traced_or_transformed_is_not_ordinary() -> None:
    found = []

    def function(y: Tensor) -> Tensor:
        found.append(_native.signature((x,)))
        return y * 2

    torch.func.grad(lambda y: function(y).sum())(x)
    torch.vmap(function)(x)
    torch.jit.trace(function, (x,), check_trace=False)
    assert found == [None, None, None]


def test_checks_that_passed_are_remembered_by_signature() -> None:
    checked = []

    @remembered
    def check(tensor: Tensor, option: str) -> int:
        checked.append(option)
        if tensor.dim() != 2:
            raise ValueError(option)
        return len(tensor)

    for _ in range(2):
        assert check(x, "a") == (2, True)
        assert check(x[:1], "a") == (1, True)
        with pytest.raises(ValueError, match="b"):
            check(x[0], "b")
        with torch.autocast("cpu", torch.bfloat16):
            assert check(x, "c") == (2, False)
    assert checked == ["a", "a", "b", "c", "b", "c"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_new_tensors(dtype: torch.dtype) -> None:
    like = torch.ones(4, 3, 2, dtype=dtype)
    cases = [
        (_native.cpu().empty(like), ()),
        (_native.cpu().empty(like, 0, 3), (0, 3)),
        (_native.cpu().empty(like, 300, 300), (300, 300)),
    ]
    given = (like, like.mT, like[:, :0], like[0].expand(5, 3, 2))
    cases += [
        (t, g.shape)
        for t, g in zip(_native.cpu().empty_like(given, (True,) * 4), given, strict=True)
        if t is not None
    ]
    assert len(cases) == 7
    for tensor, shape in cases:
        assert (tensor.shape, tensor.dtype, tensor.device.type) == (shape, dtype, "cpu")
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        tensor.fill_(1).add_(1)
        assert torch.equal(tensor.clone(), torch.full(shape, 2, dtype=dtype))
    assert _native.cpu().empty_like((like, None, x.bool()), [False, False, False]) == [None] * 3


@pytest.mark.parametrize("number", [1.0, -0.5])
def test_first_element(number: float) -> None:
    for tensor in (
        torch.tensor(number),
        torch.tensor([number, 3.0]).double(),
        torch._neg_view(torch.tensor(-number)),
    ):
        assert _native.cpu().first_element(tensor) == number


def test_tensors_that_do_not_fit() -> None:
    inputs = sem_inputs(4, 3)
    kernel = _native.cpu().sem_kl
    rest = (False, False, None, 0.0, None, None, *[None] * 5, 1, "")
    kernel(*inputs, *rest)
    with pytest.raises(ValueError, match="another dtype"):
        kernel(inputs.jac.float(), *inputs[1:], *rest)
    with pytest.raises(TypeError, match="take tensors"):
        kernel(inputs.jac.tolist(), *inputs[1:], *rest)
    with pytest.raises(TypeError, match="too few or many"):
        kernel(*inputs)
    value_with_gaps = torch.ones(8, dtype=torch.float64)[::2]
    with pytest.raises(ValueError, match="another dtype or layout"):
        kernel(*inputs, *rest[:4], value_with_gaps, *rest[5:])
