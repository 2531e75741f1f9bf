"""What every mechanism gets from its base class."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from causalvae_fast.mechanisms import CallableMechanism, LinearMechanism, Mechanism, TemporalMechanism


class Square(Mechanism):
    """f_2(z) = z_1^2, f_1 = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.d = 2
        self.register_buffer("allowed", torch.tensor([[False, False], [True, False]]))

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        return torch.stack([torch.zeros_like(z[:, 0]), z[:, 0] ** 2], dim=-1)

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        jac = z.new_zeros(z.shape[0], 2, 2)
        jac[:, 1, 0] = 2 * z[:, 0]
        return self(z), jac

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError


def test_expansion_is_tangent_at_the_pivot() -> None:
    """At z_1 = 3, z_1^2 ~ 6 z_1 - 9."""
    pivot = torch.tensor([[3.0, 100.0], [-1.0, 0.0]])
    jac, offset = Square().expand(pivot)
    assert jac.tolist() == [[[0, 0], [6, 0]], [[0, 0], [-2, 0]]]
    assert offset.tolist() == [[0, -9], [0, -1]]


def test_incomplete_mechanisms_cannot_be_made() -> None:
    class WithoutSolve(Mechanism):
        def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
            return z

    with pytest.raises(TypeError, match="abstract"):
        WithoutSolve()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: TemporalMechanism(LinearMechanism(4), 3.0, 2), "frames"),  # type: ignore[arg-type]
        (lambda: TemporalMechanism(LinearMechanism(4), 3, 2.0), "latents"),  # type: ignore[arg-type]
        (lambda: CallableMechanism(torch.zeros_like, 3, chunk=2.5), "chunk"),  # type: ignore[arg-type]
        (lambda: LinearMechanism(4).extrapolate(torch.zeros(1, 4), 1.5, 2), "steps"),  # type: ignore[arg-type]
        (lambda: LinearMechanism(4).extrapolate(torch.zeros(1, 4), 1, 2.0), "latents"),  # type: ignore[arg-type]
    ],
)
def test_sizes_that_are_no_integers(call: Callable[[], object], name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer, got "):
        call()
