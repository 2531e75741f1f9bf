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
        parents: {child: parent or parents}, each parent before its child; {} for none. Needed without `learn`, for
            sums of the squares of all earlier nodes would explode; with it, None stands for every j < i.
        d: number of nodes; by default the last child of `parents` is the last node.
        learn: make A, Q and b parameters.
        init_std: standard deviation of A and Q before they are learned; 0 makes the prior start as the isotropic
            one. Only with `learn`.

    Raises:
        TypeError: if `parents` is no mapping of integers to integers, or `d` is no integer.
        ValueError: if `parents` names a node that is not there or a parent that does not come before its child,
            if it is missing without `learn`, or if neither `parents` nor `d` is given.

    >>> parabola = QuadraticMechanism(parents={1: 0})
    >>> parabola(torch.tensor([[3.0, 5.0]]))
    tensor([[0., 9.]])
    """

    linear: Tensor | None  # (d, d), A; None for 0
    quadratic: Tensor  # (d, d), Q
    bias: Tensor | None  # (d,), b; None for 0

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
        if found is None and not learn:
            raise ValueError(
                "give parents, as {1: 0} for z_1 = z_0^2 + n_1, or {} for none; or learn=True, where None stands "
                "for every earlier node"
            )
        if found is not None:
            allowed = _mask(found, d)
        self.d = d
        self.register_buffer("allowed", allowed)
        if learn:
            self.linear = nn.Parameter(init_std * torch.randn(d, d))
            self.quadratic = nn.Parameter(init_std * torch.randn(d, d))
            self.bias = nn.Parameter(torch.zeros(d))
        else:
            self.linear = self.bias = None
            self.register_buffer("quadratic", allowed.to(torch.get_default_dtype()))

    def terms(self, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The matrices m * A and m * Q, (d, d), (child, parent)."""
        Q = torch.where(self.allowed, self.quadratic, 0.0)
        A = torch.zeros_like(Q) if self.linear is None else torch.where(self.allowed, self.linear, 0.0)
        return (A, Q) if edges is None else (A * edges, Q * edges)

    def offset(self) -> Tensor:
        """b, (d,)."""
        return self.quadratic.new_zeros(self.d) if self.bias is None else self.bias

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        A, Q = self.terms(edges)
        return z @ A.mT + z.square() @ Q.mT + self.offset()

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A, Q = self.terms(edges)
        return z @ A.mT + z.square() @ Q.mT + self.offset(), A + 2 * Q * z.unsqueeze(-2)

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A, Q = self.terms(edges)
        # b + A z0 + Q z0^2 - (A + 2 Q z0) z0, without the difference of large numbers.
        return A + 2 * Q * pivot.unsqueeze(-2), self.offset() - pivot.square() @ Q.mT

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        (A, Q), offset = self.terms(edges), self.offset()
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
