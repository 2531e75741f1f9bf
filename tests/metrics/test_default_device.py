"""Metrics compute on the CPU, whatever the default device is: "meta" stands in for a GPU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from causalvae_fast import metrics

GRAPH = torch.zeros(4, 4, dtype=torch.bool)
GRAPH[0, 1] = GRAPH[1, 3] = GRAPH[0, 2] = True
TRUTH = GRAPH[[1, 0, 2, 3]][:, [1, 0, 2, 3]]
Z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
FACTORS = Z.sign() + Z.flip(1).round()
IMAGES = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))

CALLS: dict[str, Callable[[], Any]] = {
    "shd": lambda: metrics.shd(GRAPH, TRUTH),
    "shd_within_frames": lambda: metrics.shd_within_frames(GRAPH, TRUTH, 2, 2),
    "shd_up_to_permutation": lambda: metrics.shd_up_to_permutation(GRAPH, TRUTH),
    "edge_scores": lambda: metrics.edge_scores(GRAPH, TRUTH),
    "edge_scores_up_to_permutation": lambda: metrics.edge_scores_up_to_permutation(GRAPH, TRUTH),
    "sid": lambda: metrics.sid(GRAPH, TRUTH),
    "parent_aid": lambda: metrics.parent_aid(GRAPH, TRUTH),
    "mcc": lambda: metrics.mcc(Z, FACTORS, "spearman"),
    "dci": lambda: metrics.dci(Z, FACTORS),
    "disentanglement_completeness": lambda: metrics.disentanglement_completeness(Z.abs()),
    "linear_r2": lambda: metrics.linear_r2(Z, FACTORS),
    "leakage": lambda: metrics.leakage(Z, FACTORS, (0,)),
    "sliced_wasserstein": lambda: metrics.sliced_wasserstein(Z, FACTORS),
    "classifier_two_sample": lambda: metrics.classifier_two_sample(Z, FACTORS),
    "psnr": lambda: metrics.psnr(IMAGES, IMAGES.flip(0)),
    "pixel_r2": lambda: metrics.pixel_r2(IMAGES, IMAGES.flip(0)),
}


@pytest.fixture
def other_default_device() -> Iterator[Callable[[], None]]:
    yield lambda: torch.set_default_device("meta")
    torch.set_default_device(None)


def test_every_metric_is_here() -> None:
    functions = [name for name in metrics.__all__ if not isinstance(getattr(metrics, name), type)]
    assert sorted(CALLS) == sorted(functions)


@pytest.mark.parametrize("metric", CALLS)
def test_another_default_device(metric: str, other_default_device: Callable[[], None]) -> None:
    if metric in ("sid", "parent_aid"):
        pytest.importorskip("gadjid")
    expected = CALLS[metric]()
    other_default_device()
    found = CALLS[metric]()
    assert repr(found) == repr(expected)
