"""What is no tensor is refused by its name, by every metric."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from causalvae_fast import metrics

# Each metric with the names of its first arguments, and those that are no tensors.
OF_GRAPHS = ["shd", "edge_scores", "shd_up_to_permutation", "edge_scores_up_to_permutation", "sid", "parent_aid"]
OF_LATENTS = ["mcc", "dci"]
OF_SAMPLES = ["sliced_wasserstein", "classifier_two_sample"]
OF_IMAGES = ["psnr", "pixel_r2"]
NAMES = {
    **dict.fromkeys(OF_GRAPHS, ("adjacency", "truth")),
    **dict.fromkeys(OF_LATENTS, ("latents", "factors")),
    **dict.fromkeys(OF_SAMPLES, ("a", "b")),
    **dict.fromkeys(OF_IMAGES, ("reconstruction", "target")),
    "linear_r2": ("latents", "targets"),
    "disentanglement_completeness": ("importance",),
}


@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize("convert", [np.asarray, torch.Tensor.tolist], ids=["array", "list"])
def test_arrays_and_lists(metric: str, convert: Callable[[torch.Tensor], Any]) -> None:
    names = NAMES[metric]
    valid = torch.zeros(3, 3, dtype=torch.bool) if metric in OF_GRAPHS else torch.randn(8, 3)
    for index, name in enumerate(names):
        arguments: list[Any] = [valid] * len(names)
        arguments[index] = convert(valid)
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got (ndarray|list): convert it by"):
            getattr(metrics, metric)(*arguments)


def test_the_two_with_more_arguments() -> None:
    z, graph = torch.randn(8, 2), np.zeros((4, 4), dtype=bool)
    with pytest.raises(TypeError, match="factors must be a tensor, got ndarray"):
        metrics.leakage(z, z.numpy(), (0, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="adjacency must be a tensor, got ndarray"):
        metrics.shd_within_frames(graph, graph, 2, 2)  # type: ignore[arg-type]
