"""Selections of a grid of cases that leave no small combination of its parameters out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch


def covering(axes: Sequence[Sequence[Any]], strength: int) -> list[tuple[Any, ...]]:
    """Cases of the grid in which any `strength` parameters take every combination of their values.

    What goes wrong in a kernel goes wrong where a few of its parameters meet: a size with a layout and a dtype.
    Every such meeting stays, in fewer cases. Greedy: the next case is the first that adds the most combinations.
    """
    grid = np.array(list(itertools.product(*(range(len(axis)) for axis in axes))))  # (cases, axes)
    met, seen = [], 0  # of each case the combinations that occur in it, numbered
    for chosen in itertools.combinations(range(len(axes)), min(strength, len(axes))):
        sizes = [len(axes[k]) for k in chosen]
        met.append(seen + np.ravel_multi_index(tuple(grid[:, k] for k in chosen), sizes))
        seen += math.prod(sizes)
    combinations = np.stack(met, 1)
    missing = np.ones(seen, dtype=np.int64)
    cases = []
    while missing.any():
        best = int(missing[combinations].sum(1).argmax())
        missing[combinations[best]] = 0
        cases.append(best)
    return [tuple(axis[i] for axis, i in zip(axes, grid[k], strict=True)) for k in sorted(cases)]


def each_meeting(strength: int = 3, /, **axes: Sequence[Any]) -> pytest.MarkDecorator:
    """The test for cases in which any three, or `strength`, of the named parameters take every combination.

    Nothing goes wrong in a `batch` of 0 but its shapes, so its cases stand for no others: they are apart, with
    every two of the other parameters.
    """
    cases = covering([[v for v in axis if name != "batch" or v != 0] for name, axis in axes.items()], strength)
    if 0 in axes.get("batch", ()):
        cases += covering([[0] if name == "batch" else axis for name, axis in axes.items()], 2)
    ids = ["-".join(_label(name, value) for name, value in zip(axes, case, strict=True)) for case in cases]
    return pytest.mark.parametrize(list(axes), cases, ids=ids)


def _label(name: str, value: Any) -> str:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{name}{value}" if isinstance(value, int) else f"{name}_{value}"
