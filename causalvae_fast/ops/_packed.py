"""Packed lower triangular matrices: their rows, of i + 1 elements, one behind the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def packed_size(d: int) -> int:
    """Elements of a packed matrix (d, d): d (d + 1) / 2."""
    return d * (d + 1) // 2


def pack_tril(matrix: Tensor) -> Tensor:
    """The lower triangle of each matrix, packed row by row. What stands above the diagonal is left out.

    Args:
        matrix: (..., d, d) with d >= 1.

    Returns:
        (..., d (d + 1) / 2), in the order of `torch.tril_indices(d, d)`.

    Raises:
        ValueError: if the matrices are not square, or empty.

    >>> import torch
    >>> pack_tril(torch.tensor([[1.0, 9.0], [2.0, 3.0]]))
    tensor([1., 2., 3.])
    """
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 1:
        raise ValueError(f"matrix must have shape (..., d, d), got {tuple(matrix.shape)}")
    rows, columns = torch.tril_indices(matrix.shape[-1], matrix.shape[-1], device=matrix.device)
    return matrix[..., rows, columns]


def unpack_tril(packed: Tensor) -> Tensor:
    """The opposite: lower triangular matrices, with zeros above the diagonal.

    Args:
        packed: (..., d (d + 1) / 2) with d >= 1.

    Returns:
        (..., d, d).

    Raises:
        ValueError: if the last dimension is not 1, 3, 6, 10 or another such number.

    >>> import torch
    >>> unpack_tril(torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 0.],
            [2., 3.]])
    """
    d = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2 if packed.dim() else 0
    if d < 1 or packed_size(d) != packed.shape[-1]:
        raise ValueError(f"packed must have shape (..., d (d + 1) / 2), got {tuple(packed.shape)}")
    return unpack(packed, d)


def diagonal_of_tril(matrix: Tensor, d: int) -> Tensor:
    """The diagonals (B, d) of matrices (B, d, d), or packed (B, d (d + 1) / 2)."""
    if matrix.dim() == 3:
        return matrix.diagonal(dim1=-2, dim2=-1)
    return matrix[:, [packed_size(i + 1) - 1 for i in range(d)]]


def unpack(packed: Tensor, d: int) -> Tensor:
    """The same where d is known, which torch.compile cannot find from a size that may change."""
    below = torch.ones(d, d, dtype=torch.bool, device=packed.device).tril()
    index = (below.flatten().cumsum(0) - 1).clamp(min=0).view(d, d)
    return packed[..., index].masked_fill(~below, 0)
