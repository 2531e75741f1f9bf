"""A user's function as a mechanism: what is checked, and its Jacobian in parts."""

from collections.abc import Callable

import pytest
import torch
from mechanism_cases import Triangular, normal
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from causalvae_fast.mechanisms import CallableMechanism


def chain(z: Tensor) -> Tensor:
    """0, sin z_0, z_0 z_1."""
    return torch.stack([torch.zeros_like(z[:, 0]), z[:, 0].sin(), z[:, 0] * z[:, 1]], dim=-1)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_jacobian_in_chunks(chunk: int) -> None:
    z = normal(4, 3)
    value, jac = CallableMechanism(chain, 3, chunk=chunk).linearize(z)
    assert torch.equal(value, chain(z))
    expected = torch.zeros(4, 3, 3, dtype=torch.float64)
    expected[:, 1, 0], expected[:, 2, 0], expected[:, 2, 1] = z[:, 0].cos(), z[:, 1], z[:, 0]
    assert_close(jac, expected)


def test_chunks_bound_the_memory() -> None:
    """fn's hidden layer of 500 units is there `chunk` times for each sample, not d times."""

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.numel())
            return result

    def wide(z: Tensor) -> Tensor:
        hidden = torch.tanh(z.unsqueeze(-1) * torch.linspace(-1, 1, 500)).mean(-1)  # (N, d)
        return torch.cat([0 * hidden[:, :1], hidden[:, :-1].cumsum(1)], dim=1)

    found = {}
    for chunk in (1, 16):
        mechanism = CallableMechanism(wide, 16, chunk=chunk)
        with Largest() as mode, torch.no_grad():
            mechanism.linearize(torch.randn(4, 16))
        found[chunk] = mode.elements
    assert found[1] == 4 * 16 * 500
    assert found[16] == 16 * found[1]


def test_gates_multiply_the_inputs_of_each_child() -> None:
    z, gates = normal(4, 3), torch.tensor([[0, 0, 0], [0.5, 0, 0], [1.0, 0.25, 0]]).double()
    value = CallableMechanism(chain, 3)(z, gates)
    assert_close(value, torch.stack([0 * z[:, 0], (z[:, 0] / 2).sin(), z[:, 0] * z[:, 1] / 4], dim=-1))


def test_functions_that_look_ahead_are_refused() -> None:
    with pytest.raises(ValueError, match=r"output 0 on input 0, 1 on input 1, 2 on input 2 \(found by probing\)"):
        CallableMechanism(torch.tanh, 3)
    with pytest.raises(ValueError, match="but output 0 on input 2 "):
        CallableMechanism(lambda z: torch.stack([z[:, 2], 0 * z[:, 0], z[:, 1]], dim=-1), 3)
    with pytest.raises(ValueError, match="and 58 more"):
        CallableMechanism(lambda z: z.sum(1, keepdim=True).expand_as(z), 8, torch.zeros(8, 8))
    # Only far out, and only a little.
    with pytest.raises(ValueError, match="but output 1 on input 1 "):
        CallableMechanism(lambda z: torch.stack([0 * z[:, 0], 0.01 * (z[:, 1] - 2).relu()], dim=-1), 2)
    # Below the diagonal, but not allowed.
    allowed = torch.ones(3, 3).tril(-1)
    allowed[2, 0] = 0
    with pytest.raises(ValueError, match="but output 2 on input 0 "):
        CallableMechanism(chain, 3, allowed)
    CallableMechanism(torch.tanh, 3, check=False)


@pytest.mark.parametrize(
    "of_others",
    [
        lambda x: x.mean(0),
        lambda x: x.amax(0),
        lambda x: x.roll(1, 0),
        lambda x: x.roll(2, 0),
        lambda x: x.cumsum(0),
        lambda x: x[:1],
        lambda x: x.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0),  # only pairs
    ],
    ids=["mean", "largest", "the one before", "two before", "running sum", "the first", "pairs"],
)
def test_functions_that_mix_the_samples_are_refused(of_others: Callable[[Tensor], Tensor]) -> None:
    def mixing(z: Tensor) -> Tensor:
        return torch.stack([0 * z[:, 0], z[:, 0] ** 2, z[:, 0] + of_others(z[:, 1])], dim=-1)

    with pytest.raises(ValueError, match=r"but other samples of the batch change output 2 \(found"):
        CallableMechanism(mixing, 3)
    CallableMechanism(mixing, 3, check=False)


def test_every_output_that_mixes_the_samples_is_named() -> None:
    named = "other samples of the batch change output 0, 1, 2, 3, 4, 5, and 2 more "
    with pytest.raises(ValueError, match=named):
        CallableMechanism(lambda z: z - z.mean(0), 8)


def test_functions_with_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="the same outputs for the same inputs, but two calls differ"):
        CallableMechanism(lambda z: torch.cat([0 * z[:, :1], z[:, :1] + torch.rand(len(z), 1)], 1), 2)


def test_modules_are_probed_in_evaluation_and_stay_as_they_were() -> None:
    dropout = nn.Dropout(0.5)
    module = nn.Sequential(Triangular(3), dropout).double()
    module.train()
    dropout.eval()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    mechanism = CallableMechanism(module, 3)
    assert torch.equal(torch.rand(1), expected)  # probing draws nothing from the global generator
    assert module.training
    assert not dropout.training
    assert [name for name, _ in mechanism.named_parameters()] == ["fn.0.weight"]


def test_what_fn_returns_is_checked() -> None:
    with pytest.raises(TypeError, match=r"fn must be a function of a tensor \(N, 3\), got int"):
        CallableMechanism(3, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fn must return a tensor, got tuple"):
        CallableMechanism(lambda z: (z, z), 3)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"fn must return shape \(N, 3\), got \(48, 1\) for N = 48"):
        CallableMechanism(lambda z: z[:, :1], 3)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        CallableMechanism(chain, 3, chunk=0)


def test_repr() -> None:
    assert repr(CallableMechanism(chain, 3)) == "CallableMechanism(fn=chain, d=3)"
