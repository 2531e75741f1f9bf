"""Checkpoints: what comes back is what went in, nothing is ever half written, nothing foreign is read."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from causalvae_fast.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_tensors,
    save_checkpoint,
    with_prefix,
    without_prefix,
)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"w": torch.arange(1000.0)}, {"step": 7})
    return path


def is_good(path: Path) -> bool:
    tensors, metadata = load_checkpoint(path)
    return torch.equal(tensors["w"], torch.arange(1000.0)) and metadata == {"step": 7}


def test_round_trip(tmp_path: Path) -> None:
    w = torch.randn(4, 3)
    tensors = {"w": w, "transposed": w.T, "again": w, "half": w.half(), "bytes": torch.arange(5).byte()}
    save_checkpoint(tmp_path / "c", tensors, {"step": 3, "name": "ä"})
    loaded, metadata = load_checkpoint(tmp_path / "c")
    assert metadata == {"step": 3, "name": "ä"}
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def test_a_full_disk_leaves_the_old_checkpoint(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(good, {"w": torch.zeros(1000)}, {"step": 8})
    assert is_good(good)
    assert list(good.parent.iterdir()) == [good]  # no debris


def test_an_interrupt_leaves_the_old_checkpoint(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(good, {"w": torch.zeros(1000)}, {"step": 8})
    assert is_good(good)
    assert list(good.parent.iterdir()) == [good]


def test_the_content_is_on_the_disk_before_it_takes_the_name(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def logged_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    save_checkpoint(good, {}, {})
    assert events[:2] == ["fsync", "rename"]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(good: Path, keep: int) -> None:
    good.write_bytes(good.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"{good.name} .*truncated or foreign; remove it"):
        load_checkpoint(good)


def test_pickles_are_refused(good: Path) -> None:
    good.write_bytes(pickle.dumps({"w": [1, 2, 3]}))
    with pytest.raises(CheckpointError, match="truncated or foreign"):
        load_checkpoint(good)


def test_other_safetensors_files_are_refused(good: Path) -> None:
    save_file({"w": torch.zeros(3)}, good)
    with pytest.raises(CheckpointError, match="not written by this package"):
        load_checkpoint(good)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*none\.safetensors"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_prefixes() -> None:
    tensors = {"a": torch.zeros(1), "b.c": torch.ones(1)}
    both = with_prefix("one", tensors) | with_prefix("two", tensors)
    assert len(both) == 4
    assert without_prefix("one", both) == tensors


def test_an_optimizer_goes_on_as_if_nothing_had_happened() -> None:
    def steps(parameter: torch.nn.Parameter, optimizer: torch.optim.Adam, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            (parameter - 3).square().sum().backward()
            optimizer.step()

    straight, stopped = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    first, second = torch.optim.Adam([straight], lr=0.1), torch.optim.Adam([stopped], lr=0.1)
    steps(straight, first, 10)
    steps(stopped, second, 5)
    third = torch.optim.Adam([stopped], lr=0.1)
    restore_optimizer(third, optimizer_tensors(second))
    steps(stopped, third, 5)
    assert torch.equal(straight, stopped)


def test_random_numbers_go_on() -> None:
    states = rng_tensors()
    expected = torch.randn(5)
    torch.randn(3)
    restore_rng(states)
    assert torch.equal(torch.randn(5), expected)
