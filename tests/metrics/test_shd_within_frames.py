"""Structural Hamming distance up to the order of the latents within a frame."""

from dataclasses import FrozenInstanceError
from itertools import permutations

import pytest
import torch
from torch import Tensor

from causalvae_fast.metrics import AlignedSHD, shd, shd_within_frames


def sprite_graph(x: int, y: int, latents: int = 4) -> Tensor:
    """Three frames, where latents x and y follow z3 = 2 z2 - z1."""
    adjacency = torch.zeros(3 * latents, 3 * latents, dtype=torch.bool)
    for role in (x, y):
        adjacency[role, 2 * latents + role] = True
        adjacency[latents + role, 2 * latents + role] = True
    return adjacency


def relabel(adjacency: Tensor, frames: int, permutation: tuple[int, ...]) -> Tensor:
    """The graph in which latent `permutation[k]` plays the role that latent k plays in `adjacency`."""
    latents = len(permutation)
    relabelled = torch.zeros_like(adjacency)
    for parent, child in adjacency.nonzero().tolist():
        new = [node // latents * latents + permutation[node % latents] for node in (parent, child)]
        relabelled[new[0], new[1]] = True
    assert relabelled.shape[0] == frames * latents
    return relabelled


def test_the_sprite_graph_in_other_latents() -> None:
    assert shd(sprite_graph(1, 3), sprite_graph(0, 1)) == 4
    result = shd_within_frames(sprite_graph(1, 3), sprite_graph(0, 1), frames=3, latents=4)
    assert result.shd == 0
    assert set(result.permutation[:2]) == {1, 3}


def test_direction_of_the_permutation() -> None:
    truth = torch.zeros(6, 6, dtype=torch.bool)
    truth[0, 3] = truth[0, 4] = truth[1, 5] = True  # no other order gives the same graph
    permutation = (2, 0, 1)
    learned = relabel(truth, 2, permutation)
    assert shd_within_frames(learned, truth, 2, 3) == AlignedSHD(0, permutation)
    # As the docstring says, it puts the latents in the order of the truth.
    z = torch.arange(12).reshape(2, 2, 3)  # (samples, frames, latents)
    torch.testing.assert_close(z[..., list(permutation)][..., 0], z[..., 2])
    nodes = [t * 3 + latent for t in range(2) for latent in permutation]
    assert torch.equal(learned[nodes][:, nodes], truth)


def test_one_permutation_for_all_frames() -> None:
    truth = torch.zeros(4, 4, dtype=torch.bool)
    truth[0, 2] = True
    learned = torch.zeros(4, 4, dtype=torch.bool)
    learned[0, 3] = True  # frame 0 in order, frame 1 the other way round: no common permutation
    assert shd_within_frames(learned, truth, 2, 2).shd == 2


def test_ties_go_to_the_identity() -> None:
    empty = torch.zeros(6, 6, dtype=torch.bool)
    assert shd_within_frames(empty, empty, 2, 3) == AlignedSHD(0, (0, 1, 2))


@pytest.mark.parametrize("reversed_cost", [1, 2])
def test_least_over_all_relabellings(reversed_cost: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        learned, truth = ((torch.rand(9, 9, generator=generator) < 0.3).fill_diagonal_(False) for _ in "ab")
        result = shd_within_frames(learned, truth, 3, 3, reversed_cost=reversed_cost)
        distances = [
            shd(learned, relabel(truth, 3, p), reversed_cost=reversed_cost) for p in permutations(range(3))
        ]
        assert result.shd == min(distances)
        assert result.shd == shd(learned, relabel(truth, 3, result.permutation), reversed_cost=reversed_cost)


def test_invariant_under_relabelling_of_the_learned_graph() -> None:
    generator = torch.Generator().manual_seed(1)
    learned, truth = ((torch.rand(8, 8, generator=generator) < 0.3).fill_diagonal_(False) for _ in "ab")
    distance = shd_within_frames(learned, truth, 2, 4).shd
    assert 0 < distance <= shd(learned, truth)
    assert shd_within_frames(relabel(learned, 2, (3, 1, 0, 2)), truth, 2, 4).shd == distance


def test_one_latent_is_the_plain_distance() -> None:
    learned = torch.ones(4, 4, dtype=torch.bool).triu(1)
    truth = torch.zeros(4, 4, dtype=torch.bool)
    assert shd_within_frames(learned, truth, 4, 1) == AlignedSHD(6, (0,))


def test_result_is_frozen() -> None:
    result = AlignedSHD(0, (0,))
    with pytest.raises(FrozenInstanceError):
        result.shd = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("frames", "latents", "message"),
    [
        (0, 4, "frames must be at least 1, got 0"),
        (2, 0, "latents must be at least 1, got 0"),
        (2, 3, r"frames \* latents must be the 4 nodes of adjacency, got 2 \* 3"),
    ],
)
def test_frames_and_latents_that_do_not_fit(frames: int, latents: int, message: str) -> None:
    empty = torch.zeros(4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        shd_within_frames(empty, empty, frames, latents)


def test_too_many_latents_for_all_permutations() -> None:
    empty = torch.zeros(18, 18, dtype=torch.bool)
    with pytest.raises(ValueError, match="latents must be at most 8, since all permutations are tried, got 9"):
        shd_within_frames(empty, empty, 2, 9)


def test_bad_graphs_are_refused() -> None:
    with pytest.raises(TypeError, match="truth must be a boolean"):
        shd_within_frames(torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4), 2, 2)
