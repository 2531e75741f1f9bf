"""Any function of the user's as a mechanism."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from causalvae_fast.graph.masks import check_allowed
from causalvae_fast.mechanisms.base import Mechanism
from causalvae_fast.ops._checks import check_integer

_PROBES = 16  # points of each size at which the function is probed
_PROBE_SIZES = (0.3, 1.0, 3.0)
_TOLERANCE = 1e-5  # of a change, relative to the size of the output: what is smaller may be rounding
_NAMED = 6  # entries that an error names


class CallableMechanism(Mechanism):
    """f = fn, any function (N, d) -> (N, d) of which output i depends on the inputs j < i, row by row.

    That is checked once, by moving each input, and each half of the samples, at random points and looking for
    outputs that follow. An `nn.Module` is probed in evaluation mode, and its parameters become those of the
    mechanism. In training, batch normalisation inside of fn would mix the samples: that is what
    `NormalizedMechanism` is for. The Jacobian is taken by `torch.func`, `chunk` of its rows at a time, so that
    what fn keeps for it is there `chunk` times and not d times.

    Gates multiply the inputs, as in `MLPMechanism`. Since fn knows nothing of them, it is then evaluated for each
    child with that child's gates, d times as many rows. `solve` evaluates fn d times.

    Args:
        fn: the function, differentiable; twice where the divergence is to be trained.
        d: number of nodes.
        allowed: boolean mask (d, d), (child, parent), of the inputs that an output depends on; every j < i by
            default. Without it, every j < i counts as a parent of i in `SEMPrior.adjacency` and
            `SEMPrior.intervene`, whatever fn does.
        chunk: rows of the Jacobian at a time, at least 1.
        check: probe the function.

    Raises:
        TypeError: if `fn` is not callable or returns no tensor, d or `chunk` is no integer, or `allowed` no
            tensor.
        ValueError: if `fn` returns another shape, draws noise, depends on what is not allowed, or mixes the
            samples of a batch; the message names outputs and inputs.

    >>> mechanism = CallableMechanism(lambda z: torch.stack([0 * z[:, 0], z[:, 0].sin()], dim=-1), 2)
    >>> mechanism.linearize(torch.zeros(1, 2))[1]
    tensor([[[0., 0.],
             [1., 0.]]])
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        d: int,
        allowed: Tensor | None = None,
        *,
        chunk: int = 16,
        check: bool = True,
    ) -> None:
        super().__init__()
        if not callable(fn):
            raise TypeError(f"fn must be a function of a tensor (N, {d}), got {type(fn).__name__}")
        check_integer("chunk", chunk, 1)
        self.register_buffer("allowed", check_allowed(allowed, d))
        self.d, self.chunk = d, chunk
        self.fn = fn
        if check:
            _probe(fn, self.allowed)

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        if edges is None:
            return self.fn(z)
        gates = torch.where(self.allowed, edges, 0.0)
        gated = (gates * z.unsqueeze(1)).reshape(-1, self.d)  # row (n, i): the inputs of child i of sample n
        return torch.unflatten(self.fn(gated), 0, (z.shape[0], self.d)).diagonal(dim1=-2, dim2=-1)

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, pullback, *_ = torch.func.vjp(lambda x: self(x, edges), z)
        unit = torch.eye(self.d, dtype=value.dtype, device=value.device)
        rows = [
            torch.func.vmap(pullback)(chunk.unsqueeze(1).expand(-1, *z.shape))[0]
            for chunk in unit.split(self.chunk)
        ]
        return value, torch.cat(rows).transpose(0, 1)  # (d, N, d), one row of each sample, to (N, d, d)

    def extra_repr(self) -> str:
        return f"fn={getattr(self.fn, '__name__', type(self.fn).__name__)}, d={self.d}"


@torch.no_grad()
def _probe(fn: Callable[[Tensor], Tensor], allowed: Tensor) -> None:
    """Raises if an output of fn moves with an input that it may not depend on, or with another sample."""
    d = len(allowed)
    parameters = list(fn.parameters()) if isinstance(fn, nn.Module) else []
    like = parameters[0] if parameters else torch.zeros(())
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([size * torch.randn(_PROBES, d, generator=generator) for size in _PROBE_SIZES]).to(like)
    modes = [(m, m.training) for m in fn.modules()] if isinstance(fn, nn.Module) else []
    try:
        for module, _ in modes:
            module.training = False
        value = _evaluate(fn, points)
        varies = bool(_changed(value, _evaluate(fn, points)).any())
        mixed = _mixed(fn, points, value, generator)
        moved = torch.stack([_moved(fn, points, value, node) for node in range(d)], dim=-1)  # (output, input)
    finally:
        for module, training in modes:
            module.training = training
    if varies:
        raise ValueError(
            "fn must give the same outputs for the same inputs, but two calls differ: leave noise out"
        )
    if bool(mixed.any()):
        outputs = mixed.nonzero().flatten().tolist()
        named = ", ".join(map(str, outputs[:_NAMED])) + _more(outputs)
        raise ValueError(
            "fn must compute each sample from its own row, but other samples of the batch change output "
            f"{named} (found by probing): leave out means over the batch, or use NormalizedMechanism"
        )
    wrong = (moved & ~allowed.to(moved.device)).nonzero().tolist()
    if wrong:
        named = ", ".join(f"{child} on input {parent}" for child, parent in wrong[:_NAMED])
        raise ValueError(
            "fn must have outputs i that depend on allowed inputs j < i alone, but output "
            f"{named}{_more(wrong)} (found by probing)"
        )


def _more(found: list[Any]) -> str:
    return f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""


def _evaluate(fn: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """fn at the points (N, d), checked to be (N, d)."""
    value = fn(points)
    if not isinstance(value, Tensor):
        raise TypeError(f"fn must return a tensor, got {type(value).__name__}")
    if value.shape != points.shape:
        raise ValueError(
            f"fn must return shape (N, {points.shape[1]}), got {tuple(value.shape)} for N = {len(points)}"
        )
    return value


def _mixed(fn: Callable[[Tensor], Tensor], points: Tensor, value: Tensor, generator: torch.Generator) -> Tensor:
    """Mask (d,) of the outputs that change for one half of the points (N, d) when the other half does."""
    n, d = points.shape
    elsewhere = torch.randn(n, d, generator=generator).to(points)
    # Halves drawn by lot: of any samples that are mixed, some are parted.
    moving = (torch.randperm(n, generator=generator) < n // 2).to(points.device).unsqueeze(-1)
    found = [
        (_changed(value, _evaluate(fn, torch.where(half, elsewhere, points))) & ~half).any(0)
        for half in (moving, ~moving)
    ]
    return found[0] | found[1]


def _moved(fn: Callable[[Tensor], Tensor], points: Tensor, value: Tensor, node: int) -> Tensor:
    """Mask (d,) of the outputs that change at one of the points (N, d) when input `node` does."""
    elsewhere = points.clone()
    elsewhere[:, node] = points[:, node].roll(1)
    return _changed(value, _evaluate(fn, elsewhere)).any(0)


def _changed(before: Tensor, after: Tensor) -> Tensor:
    """Mask of the elements that differ by more than rounding, or in being NaN."""
    return ((after - before).abs() > _TOLERANCE * (1 + before.abs())) | (after.isnan() != before.isnan())
