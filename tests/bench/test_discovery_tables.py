"""How the benchmark of discovery counts edges whose direction a method leaves open."""

import discovery
import torch

from causalvae_fast.metrics import shd


def graph(*edges: tuple[int, int]) -> torch.Tensor:
    adjacency = torch.zeros(3, 3, dtype=torch.bool)
    for parent, child in edges:
        adjacency[parent, child] = True
    return adjacency


def test_an_open_direction_is_taken_for_right() -> None:
    learned = graph((0, 1), (1, 0), (1, 2))
    for truth in (graph((0, 1), (1, 2)), graph((1, 0), (1, 2))):
        assert shd(discovery.once(learned, truth), truth) == 1
        assert torch.equal(discovery.settled(learned, truth), truth)


def test_an_open_edge_that_is_not_there_is_one_error() -> None:
    learned, truth = graph((0, 1), (1, 0)), graph((1, 2))
    assert shd(discovery.once(learned, truth), truth) == 2
    assert shd(discovery.settled(learned, truth), truth) == 2


def test_an_edge_turned_round_stays_so() -> None:
    learned, truth = graph((0, 1)), graph((1, 0))
    assert torch.equal(discovery.settled(learned, truth), learned)
