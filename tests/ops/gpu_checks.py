"""What tests on a GPU share: a stream that is busy, and a graph of launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def on_a_late_stream(inputs: Sequence[Tensor], compute: Callable[..., list[Tensor]]) -> list[Tensor]:
    """What `compute` gives for the inputs on a stream of its own, which gets to them after a while: launches have
    to stand behind what that stream still has to do, and before what follows.
    """
    late = [torch.zeros_like(t) for t in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(late, inputs, strict=True):
            target.copy_(source)
        found = compute(*late)
    stream.synchronize()
    return found


def captured(step: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A graph of what `step` launches, which may wait for nothing, and the tensors that a replay writes to."""
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        step()
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph, results


def overwrite(tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
    """Put other numbers into the tensors that a graph was captured with."""
    with torch.no_grad():
        for target, source in zip(tensors, numbers, strict=True):
            target.copy_(source)
