"""The quadratic mechanism: parabolas, fixed or learned."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from causalvae_fast import ops
from causalvae_fast.graph.masks import check_allowed
from causalvae_fast.mechanisms.base import Mechanism, Normalization


class QuadraticMechanism(Mechanism):
    """f_i(z) = sum_j m_ij (A_ij z_j + Q_ij z_j^2) + b_i over the parents j of i, with gates m.

    Fixed, as in the experiment with ovals, f is the sum of the squares of the parents: A = 0, b = 0 and Q = 1 at
    each edge. It has no scale that could be learned, a condition of the identifiability theorem (Theorem 7).
    Learned, A, Q and b are parameters.

    Args:
        parents: {child: parent or parents}, each parent before its child; or None, for every j < i.
        d: number of nodes; by default the last child of `parents` is the last node.
        learn: make A, Q and b parameters.
        init_std: standard deviation of A and Q before they are learned; 0 makes the prior start as the isotropic
            one. Only with `learn`.

    Raises:
        TypeError: if `parents` is no mapping of integers to integers, or `d` is no integer.
        ValueError: if `parents` names a node that is not there or a parent that does not come before its child,
            or if neither `parents` nor `d` is given.

    >>> parabola = QuadraticMechanism(parents={1: 0})
    >>> parabola(torch.tensor([[3.0, 5.0]]))
    tensor([[0., 9.]])
    """

    linear: Tensor  # (d, d), A
    quadratic: Tensor  # (d, d), Q
    bias: Tensor  # (d,), b

    def __init__(
        self,
        parents: Mapping[int, int | Iterable[int]] | None = None,
        d: int | None = None,
        *,
        learn: bool = False,
        init_std: float = 0.0,
    ) -> None:
        super().__init__()
        found = None if parents is None else _integers(parents)
        if d is None:
            if not found:
                raise ValueError("give d, the number of nodes, or parents with at least one child")
            d = 1 + max(node for child, several in found.items() for node in (child, *several))
        allowed = check_allowed(None, d)
        if found is not None:
            allowed = _mask(found, d)
        self.d = d
        self.register_buffer("allowed", allowed)
        zeros, ones = torch.zeros(d, d), allowed.to(torch.get_default_dtype())
        if learn:
            self.linear = nn.Parameter(init_std * torch.randn(d, d))
            self.quadratic = nn.Parameter(init_std * torch.randn(d, d))
            self.bias = nn.Parameter(torch.zeros(d))
        else:
            self.register_buffer("linear", zeros, persistent=False)
            self.register_buffer("quadratic", ones)
            self.register_buffer("bias", torch.zeros(d), persistent=False)

    def terms(self, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The matrices m * A and m * Q, (d, d), (child, parent)."""
        found = [torch.where(self.allowed, matrix, 0.0) for matrix in (self.linear, self.quadratic)]
        A, Q = found if edges is None else [matrix * edges for matrix in found]
        return A, Q

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        A, Q = self.terms(edges)
        return z @ A.mT + z.square() @ Q.mT + self.bias

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A, Q = self.terms(edges)
        return z @ A.mT + z.square() @ Q.mT + self.bias, A + 2 * Q * z.unsqueeze(-2)

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A, Q = self.terms(edges)
        # b + A z0 + Q z0^2 - (A + 2 Q z0) z0, without the difference of large numbers.
        return A + 2 * Q * pivot.unsqueeze(-2), self.bias - pivot.square() @ Q.mT

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        (A, Q), offset = self.terms(edges), self.bias
        if normalization is not None:
            scale = normalization.scale.unsqueeze(-1)
            A, Q, offset = A * scale, Q * scale, normalization(offset)
        return ops.ancestral_sample(noise, jac=A, quadratic=Q, offset=offset, do_mask=do_mask, do_values=do_values)

    def extra_repr(self) -> str:
        return f"d={self.d}, edges={int(self.allowed.sum())}, learn={isinstance(self.quadratic, nn.Parameter)}"


def _integers(parents: Mapping[int, int | Iterable[int]]) -> dict[int, list[int]]:
    """{child: its parents}, where any integers and containers of them are accepted."""
    if not isinstance(parents, Mapping):
        with_d = f" (for {parents} nodes, give d={parents})" if isinstance(parents, int) else ""
        raise TypeError(
            f"parents must be a mapping {{child: parent or parents}}, got {type(parents).__name__}{with_d}"
        )
    found = {}
    for child, given in parents.items():
        try:
            found[operator.index(child)] = _one_or_several(given)
        except TypeError as error:
            raise TypeError(
                f"parents must have integers, as {{1: 0, 3: [0, 2]}}, got {{{child!r}: {given!r}}}"
            ) from error
    return found


def _one_or_several(nodes: Any) -> list[int]:
    try:
        return [operator.index(nodes)]
    except TypeError:
        return [operator.index(node) for node in nodes]


def _mask(parents: dict[int, list[int]], d: int) -> Tensor:
    """Boolean (d, d), (child, parent), from {child: its parents}."""
    mask = torch.zeros(d, d, dtype=torch.bool)
    for child, several in parents.items():
        for parent in several:
            if not 0 <= parent < child < d:
                raise ValueError(
                    f"parents has {parent} -> {child}: a parent comes before its child, nodes are 0 to {d - 1}, "
                    f"as d is {d}"
                )
            mask[child, parent] = True
    return mask
