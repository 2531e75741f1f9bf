"""Which edges a graph may have."""

import itertools

import numpy as np
import pytest
import torch

from causalvae_fast import temporal_mask
from causalvae_fast.graph.masks import check_allowed


@pytest.mark.parametrize("instantaneous", [False, True])
@pytest.mark.parametrize("lag", [None, 1, 2, 3, 10])
@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (1, 4), (4, 1), (3, 4), (5, 2)])
def test_temporal_mask_edge_by_edge(frames: int, latents: int, lag: int | None, instantaneous: bool) -> None:
    mask = temporal_mask(frames, latents, lag, instantaneous)
    assert mask.shape == (frames * latents, frames * latents)
    assert mask.dtype == torch.bool
    nodes = list(itertools.product(range(frames), range(latents)))
    for child, (t, k) in enumerate(nodes):
        for parent, (s, j) in enumerate(nodes):
            forward = s < t and (lag is None or t - s <= lag)
            within = instantaneous and s == t and j < k
            assert bool(mask[child, parent]) == (forward or within), ((s, j), (t, k))


def test_three_frames_of_four_latents() -> None:
    assert int(temporal_mask(3, 4).sum()) == 48
    assert int(temporal_mask(3, 4, lag=1).sum()) == 32
    assert int(temporal_mask(3, 4, instantaneous=True).sum()) == 48 + 18


def test_one_frame_with_instantaneous_edges_is_the_maximal_graph() -> None:
    assert torch.equal(temporal_mask(1, 5, instantaneous=True), check_allowed(None, 5))
    assert torch.equal(temporal_mask(5, 1), check_allowed(None, 5))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"frames": 0, "latents": 2}, "frames"),
        ({"frames": 2, "latents": 0}, "latents"),
        ({"frames": 2, "latents": 2, "lag": 0}, "lag"),
        ({"frames": -1, "latents": 2}, "frames"),
    ],
)
def test_temporal_mask_errors_name_the_argument(arguments: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {arguments[name]}$"):
        temporal_mask(**arguments)


@pytest.mark.parametrize("name", ["frames", "latents", "lag"])
@pytest.mark.parametrize("value", [3.0, True, "3"])
def test_sizes_that_are_no_integers(name: str, value) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match=f"^{name} must be an integer, got "):
        temporal_mask(**{"frames": 2, "latents": 2, "lag": 1, name: value})


def test_maximal_graph_by_default() -> None:
    assert check_allowed(None, 1).tolist() == [[False]]
    assert check_allowed(None, 3).int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_allowed_is_copied_and_made_boolean() -> None:
    given = torch.tensor([[0, 0], [1, 0]])
    allowed = check_allowed(given, 2)
    assert allowed.dtype == torch.bool
    boolean = given.bool()
    kept = check_allowed(boolean, 2)
    boolean[1, 0] = False
    assert kept.int().tolist() == given.tolist()


def test_allowed_errors() -> None:
    with pytest.raises(ValueError, match=r"allowed must have shape \(3, 3\), got \(2, 2\)"):
        check_allowed(torch.zeros(2, 2, dtype=torch.bool), 3)
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        check_allowed(None, 0)
    with pytest.raises(TypeError, match=r"allowed must be a boolean tensor \(2, 2\), got ndarray: .*as_tensor"):
        check_allowed(np.ones((2, 2)), 2)  # type: ignore[arg-type]
    for parent, child in ((0, 0), (1, 0)):  # a self-loop, an edge backwards
        allowed = torch.zeros(2, 2, dtype=torch.bool)
        allowed[child, parent] = True
        with pytest.raises(ValueError, match=r"allowed is \(child, parent\) and must be strictly lower"):
            check_allowed(allowed, 2)
