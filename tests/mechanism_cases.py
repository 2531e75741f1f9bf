"""One mechanism of each kind, with random parameters, in float64 and in evaluation, for tests of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from causalvae_fast import temporal_mask
from causalvae_fast.mechanisms import (
    CallableMechanism,
    LinearMechanism,
    Mechanism,
    MLPMechanism,
    NormalizedMechanism,
    QuadraticMechanism,
    TemporalMechanism,
)


class Triangular(nn.Module):
    """tanh(A z + A z^2) with a strictly lower triangular A."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, d) / d**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh((z + z.square()) @ self.weight.tril(-1).mT)


def linear(d: int, allowed: Tensor | None = None) -> Mechanism:
    mechanism = LinearMechanism(d, allowed, init_std=d**-0.5)
    mechanism.bias.data.normal_()
    return mechanism


def fixed_quadratic(d: int, allowed: Tensor | None = None) -> Mechanism:
    allowed = torch.ones(d, d).tril(-1) if allowed is None else allowed
    return QuadraticMechanism({i: allowed[i].nonzero().flatten().tolist() for i in range(d)}, d)


def quadratic(d: int, allowed: Tensor | None = None) -> Mechanism:
    mechanism = QuadraticMechanism(d=d, learn=True, init_std=0.4 / d**0.5)
    mechanism.bias.data.normal_()
    if allowed is not None:
        mechanism.allowed &= allowed
    return mechanism


def mlp(d: int, allowed: Tensor | None = None, activation: str = "tanh") -> Mechanism:
    mechanism = MLPMechanism(d, 5, activation, allowed, init_std=0.7)
    mechanism.b_out.data.normal_()
    return mechanism


def callable_(d: int, allowed: Tensor | None = None) -> Mechanism:
    module = Triangular(d)
    if allowed is not None:
        module.weight.data *= allowed
    return CallableMechanism(module, d, allowed, chunk=2)


def normalized(d: int, allowed: Tensor | None = None, of: Callable[..., Mechanism] = mlp) -> Mechanism:
    mechanism = NormalizedMechanism(of(d, allowed))
    mechanism.norm.running_mean.normal_()
    mechanism.norm.running_var.uniform_(0.3, 2.0)
    return mechanism


# Of d nodes each, with the mask of what is allowed as an option.
OF_NODES: dict[str, Callable[..., Mechanism]] = {
    "linear": linear,
    "fixed quadratic": fixed_quadratic,
    "quadratic": quadratic,
    "mlp": mlp,
    "mlp silu": partial(mlp, activation="silu"),
    "mlp softplus": partial(mlp, activation="softplus"),
    "mlp leaky_relu": partial(mlp, activation="leaky_relu"),
    "callable": callable_,
    "normalized mlp": normalized,
    "normalized quadratic": partial(normalized, of=quadratic),
    "normalized callable": partial(normalized, of=callable_),
}


def _temporal(of: Callable[..., Mechanism], instantaneous: bool) -> TemporalMechanism:
    """Four time steps of two latents, with a lag of one."""
    return TemporalMechanism(of(4, temporal_mask(2, 2, instantaneous=instantaneous)), frames=4, latents=2)


# Complete: four nodes, or eight in time.
CASES: dict[str, Callable[[], Mechanism]] = {
    **{name: partial(make, 4) for name, make in OF_NODES.items()},
    "temporal mlp": lambda: _temporal(mlp, True),
    "temporal linear": lambda: _temporal(linear, False),
    "temporal normalized": lambda: _temporal(normalized, True),
}


def case(name: str) -> Mechanism:
    torch.manual_seed(0)
    return CASES[name]().double().eval()


def of_nodes(name: str, d: int, allowed: Tensor | None = None) -> Mechanism:
    torch.manual_seed(d)
    return OF_NODES[name](d, allowed).double().eval()


def gates_of(mechanism: Mechanism) -> Tensor:
    """Gates in [0, 1], one of them shut where there are several edges, shaped as the mechanism takes them."""
    gates = torch.rand(mechanism.allowed.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    edges = mechanism.allowed.nonzero()
    if len(edges) > 1:
        gates[tuple(edges[-1])] = 0
    return gates


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
