"""What do() may ask for, and which nodes it reaches."""

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


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        ({3: 1.0}, ValueError, "do names node 3, but the nodes are 0 to 2"),
        ({-1: 1.0}, ValueError, "do names node -1, but"),
        ({1.5: 1.0}, ValueError, "do names node 1.5, but"),
        ({1: float("nan")}, ValueError, r"do\[1\] must be a number, got NaN"),
        ({0: 1.0, 1: torch.tensor([1.0, torch.nan])}, ValueError, r"do\[1\] must be a number, got NaN"),
        ({1: torch.zeros(3)}, ValueError, r"do\[1\] must be a number or have shape \(2,\), got \(3,\)"),
        ({1: "a"}, TypeError, r"do\[1\] must be a number or a tensor, got str"),
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
