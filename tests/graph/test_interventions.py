"""What do() may ask for, and which nodes it reaches."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from causalvae_fast.graph.interventions import descendants, intervention

LIKE = torch.zeros(2, 3)
SHAPE = torch.Size([2])


def test_mask_and_values() -> None:
    mask, values = intervention({2: torch.tensor([1.0, 2.0]), 0: -1}, LIKE, SHAPE)
    assert mask is not None
    assert values is not None
    assert mask.tolist() == [True, False, True]
    assert values.tolist() == [[-1, 0, 1], [-1, 0, 2]]
    assert values.dtype == LIKE.dtype
    assert intervention(None, LIKE, SHAPE) == intervention({}, LIKE, SHAPE) == (None, None)


@pytest.mark.parametrize("value", [np.float32(2), np.float64(2), np.int64(2), np.uint8(2), Fraction(2), 2])
def test_numbers_of_any_kind(value) -> None:  # type: ignore[no-untyped-def]
    mask, values = intervention({np.int64(1): value}, LIKE, SHAPE)
    assert mask is not None
    assert values is not None
    assert mask.tolist() == [False, True, False]
    assert values.tolist() == [[0, 2, 0]] * 2
    assert values.dtype == LIKE.dtype


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        ({3: 1.0}, ValueError, "do names node 3, but the nodes are 0 to 2"),
        ({-1: 1.0}, ValueError, "do names node -1, but"),
        ({1.5: 1.0}, ValueError, "do names node 1.5, but"),
        ({1: float("nan")}, ValueError, r"do\[1\] must be finite, got nan"),
        ({0: 1.0, 1: torch.tensor([1.0, torch.nan])}, ValueError, r"do\[1\] must be finite, got nan"),
        ({1: -math.inf}, ValueError, r"do\[1\] must be finite, got -inf"),
        ({1: np.float32("inf")}, ValueError, r"do\[1\] must be finite, got inf"),
        ({1: torch.tensor(math.inf)}, ValueError, r"do\[1\] must be finite, got inf"),
        ({1: 1j}, TypeError, r"do\[1\] must be a real number or a tensor, got complex$"),
        ({1: torch.tensor(1j)}, TypeError, r"do\[1\] must be real, got torch.complex64"),
        ({1: np.zeros(2)}, TypeError, r"do\[1\] must be .*, got ndarray: .* torch\.as_tensor"),
        ({1: [0.0, 1.0]}, TypeError, r"do\[1\] must be .*, got list: .* torch\.as_tensor"),
        ({1: torch.zeros(3)}, ValueError, r"do\[1\] must be a number or have shape \(2,\), got \(3,\)"),
        ({1: "a"}, TypeError, r"do\[1\] must be a real number or a tensor, got str"),
    ],
)
def test_errors(do: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        intervention(do, LIKE, SHAPE)


def test_descendants() -> None:
    edges = torch.zeros(5, 5, dtype=torch.bool)  # 0 -> 1 -> 3, 2 -> 3, and 4
    edges[1, 0] = edges[3, 1] = edges[3, 2] = True

    def of(*nodes: int) -> list[int]:
        return descendants(edges, torch.tensor([i in nodes for i in range(5)])).nonzero().flatten().tolist()

    assert of(0) == [1, 3]
    assert of(2) == [3]
    assert of(0, 1) == [1, 3]
    assert of(3) == of(4) == of() == []
