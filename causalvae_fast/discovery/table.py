"""What `discover` takes: a table of real numbers, whose columns may have names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MIN_SAMPLES = 30
# Columns that differ by fewer standard deviations are copies; a column that others predict so well has no noise.
LEAST_DEVIATION = 1e-5

Names = tuple[Hashable, ...]


def as_table(X: Tensor | ArrayLike) -> tuple[Tensor, Names | None]:
    """X as float64 on the CPU, and the names of its columns if it is a data frame, of whatever package.

    Raises:
        TypeError: if X is a dictionary or text, or holds anything but real numbers; the message names the columns.
        ValueError: if two columns have the same name.
    """
    if isinstance(X, Tensor):
        if X.is_complex():
            raise TypeError(f"X must be real, got {X.dtype}")
        return X.detach().cpu().double(), None
    if isinstance(X, Mapping):
        raise TypeError(
            f"X must be a table of shape (n, d), got {type(X).__name__}: pass pandas.DataFrame(X), which keeps "
            "the names, or numpy.column_stack(list(X.values()))"
        )
    if isinstance(X, (str, bytes, PurePath)):
        raise TypeError(
            f"X must be a table of shape (n, d), got {type(X).__name__}: read the file first, "
            "as by pandas.read_csv"
        )
    array: NDArray[Any] = np.asarray(X)
    names = _names(X, array.shape)
    if array.dtype.kind == "c":
        raise TypeError(f"X must be real, got {array.dtype}")
    if array.dtype.kind in "mM":
        raise TypeError(f"X must hold real numbers, got {array.dtype}: convert times to numbers")
    if array.dtype.kind not in "biuf":
        # As objects, since numbers beside text would have become text.
        array = _numbers(np.asarray(X, dtype=object), names)
    return torch.from_numpy(array.astype(np.float64)), names


def _names(X: object, shape: tuple[int, ...]) -> Names | None:
    # `columns` are the data themselves in pyarrow, which has the names apart.
    found = getattr(X, "column_names", getattr(X, "columns", None))
    names = () if found is None else tuple(found)
    if shape[1:] != (len(names),):
        return None
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise ValueError(f"X has columns of the same name, {twice}: give each its own")
    return names


def _numbers(array: NDArray[np.object_], names: Names | None) -> NDArray[Any]:
    """The elements as float64, where all are numbers."""
    if array.ndim != 2:
        raise TypeError(f"X must hold real numbers in the shape (n, d), got objects in the shape {array.shape}")
    columns = names or range(array.shape[1])
    others = [[value for value in column if not isinstance(value, (Real, np.bool_))] for column in array.T]
    found = [f"{name!r} has {values[0]!r}" for name, values in zip(columns, others, strict=True) if values]
    if found:
        raise TypeError(
            f"X must hold real numbers, but column {', '.join(found)}: convert numbers that are written as text, "
            "and leave other columns out, since discrete variables are no part of the model"
        )
    return array


def standardise(X: Tensor, names: Names | None = None) -> Tensor:
    """Columns of mean 0 and variance 1, (n, d), of X (n, d), checked to be such that graphs can be told apart.

    Raises:
        ValueError: if X has another shape, too few samples, values that are not finite, a constant column, a
            column twice, or one that is a linear function of others; the message names the columns.
    """
    if X.dim() != 2 or X.shape[1] == 0:
        remedy = ": if it is one column, pass X[:, None]" if X.dim() == 1 else ""
        raise ValueError(f"X must have shape (n, d) with d >= 1, got {tuple(X.shape)}{remedy}")
    n, d = X.shape
    columns: Sequence[Hashable] = names or range(d)
    if n < MIN_SAMPLES:
        remedy = f" of {d} columns: X is (n, d), samples in rows: transpose it?" if d > n else ""
        raise ValueError(f"X must have at least {MIN_SAMPLES} samples, got {n}{remedy}")
    if not bool(torch.isfinite(X).all()):
        found = chosen(columns, (~torch.isfinite(X)).any(0))
        raise ValueError(f"X must be finite, got NaN or infinity in the columns {found}")
    # By comparison, not by the variance: the mean of equal numbers may differ in the last bit.
    constant = chosen(columns, X.amax(0) == X.amin(0))
    if constant:
        raise ValueError(f"X has constant columns, {constant}: leave them out")
    # Scaled first, so that no square overflows or vanishes.
    centred = X - X.mean(0)
    centred = centred / centred.abs().amax(0)
    centred = centred - centred.mean(0)
    standardised = centred / centred.square().mean(0).sqrt()
    _check_independence(standardised, columns)
    return standardised


def warn_of_two_values(X: Tensor, names: Names | None) -> None:
    """Warn of the columns of X (n, d) that have two values only, as truth values do, by their names."""
    two = X.eq(X.amin(0)) | X.eq(X.amax(0))
    found = chosen(names or range(X.shape[1]), two.all(0))
    if found:
        warnings.warn(
            f"X has columns of only two values, {found}: discrete variables are no part of the model, so that "
            "edges at them mean little; leave them out",
            stacklevel=3,
        )


def _check_independence(standardised: Tensor, columns: Sequence[Hashable]) -> None:
    """Require columns of which none is a copy, or a linear function, of others."""
    n, d = standardised.shape
    correlation = (standardised.mT @ standardised / n).abs().triu(1)
    copies = (correlation > 1 - LEAST_DEVIATION**2).nonzero().tolist()
    if copies:
        pairs = ", ".join(f"{columns[i]!r} and {columns[j]!r}" for i, j in copies)
        raise ValueError(f"X has the same column twice, up to its units: {pairs}; leave one of them out")
    if n > d:
        # Of each column, what those before it leave.
        left = torch.linalg.qr(standardised, mode="r").R.diagonal().abs() / math.sqrt(n)
        predicted = chosen(columns, left < LEAST_DEVIATION)
        if predicted:
            raise ValueError(
                f"X has columns that are linear functions of columns before them, without noise: {predicted}; "
                "leave them out"
            )


def chosen(columns: Sequence[Hashable], mask: Tensor) -> list[Hashable]:
    """Those of the columns for which `mask` (d,) is true."""
    return [columns[j] for j in mask.nonzero().flatten().tolist()]
