"""The CUDA backend where its kernels cannot run: each cause is said, and nothing falls back in silence."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast import doctor
from causalvae_fast.ops import _cuda, _native, propagate
from causalvae_fast.ops._backend import choose_backend
from causalvae_fast.ops._cuda import NotUsableError
from causalvae_fast.ops._native import NotBuiltError

OPS = ("ancestral_sample", "mlp_ancestral_sample", "propagate", "gaussian_kl")


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    _cuda._cause.cache_clear()
    yield
    _cuda._cause.cache_clear()


def module(driver: int = 13000, devices: object = ("H100",)) -> SimpleNamespace:
    def names() -> list[str]:
        if isinstance(devices, Exception):
            raise devices
        return list(devices)  # type: ignore[call-overload]

    return SimpleNamespace(runtime_version=lambda: 13000, driver_version=lambda: driver, devices=names)


@pytest.mark.parametrize(
    ("found", "error", "cause"),
    [
        (ImportError("no such file"), NotBuiltError, r"the CUDA module was (built|not built).*no such file"),
        (module(driver=0), NotUsableError, "there is no NVIDIA driver"),
        (
            module(driver=11080, devices=RuntimeError("driver is too old")),
            NotUsableError,
            r"no device can be used: driver is too old \(runtime 13.0, driver for CUDA 11.8\)",
        ),
        (module(devices=()), NotUsableError, "the driver, for CUDA 13.0, knows no device"),
    ],
    ids=["not built", "no driver", "old driver", "no device"],
)
def test_causes(monkeypatch: pytest.MonkeyPatch, found: object, error: type[Exception], cause: str) -> None:
    cpu = _native._load("_cpu")
    monkeypatch.setattr(_native, "_load", lambda name: found if name == "_cuda" else cpu)
    for op in OPS:
        status = cvf.backends()[op]["cuda"]
        assert not status.available
        with pytest.raises(error, match=cause):
            choose_backend(op, "cuda", "cuda")
        with pytest.raises(error, match=cause):
            choose_backend(op, "cuda", "cpu")
    with pytest.raises(error, match=cause):
        propagate(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2), backend="cuda")


def test_pytorch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_load", lambda name: module())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotUsableError, match=r"there is H100, but PyTorch .* sees no CUDA device"):
        _cuda.check("cuda")


def test_callers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error holds the frames that it went through; this one is met by each call that chooses a backend."""
    monkeypatch.setattr(_native, "_load", lambda name: module(driver=0))

    def caller() -> weakref.ref[Tensor]:
        tensor = torch.zeros(2)
        assert choose_backend("propagate", None, "cuda") == "reference"
        return weakref.ref(tensor)

    kept = caller()
    gc.collect()
    assert kept() is None


def with_devices(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(_native, "_load", lambda name: module())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")


def test_a_device_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with_devices(monkeypatch, (9, 0), (7, 5))
    with pytest.raises(NotUsableError, match=r"GPU 1 has compute capability 7\.5"):
        _cuda.check("cuda")
    assert choose_backend("propagate", None, "cuda") == "reference"
    assert "GPU 1 has" in doctor.examine()["cuda"]["detail"]


def test_where_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with_devices(monkeypatch, (8, 0))
    assert choose_backend("propagate", None, "cuda") == "cuda"
    assert cvf.backends()["propagate"]["cuda"].detail == (
        "compiled kernels for H100: runtime 13.0, driver for CUDA 13.0"
    )
    assert doctor.examine()["cuda"] == {"available": True, "detail": _cuda.detail()}
    with pytest.raises(ValueError, match=r"^backend: 'cuda' takes tensors on a CUDA device, but they are on cpu"):
        choose_backend("propagate", "cuda", "cpu")


@pytest.mark.skipif(isinstance(_native._load("_cuda"), ImportError), reason="the CUDA module was not built")
def test_the_module_takes_tensors_on_a_device() -> None:
    compiled = _native.load("_cuda")
    jac, offset, log_sigma = torch.zeros(2, 2), torch.zeros(2), torch.zeros(2)
    with pytest.raises(ValueError, match="kernels take tensors on a CUDA device"):
        compiled.propagate(jac, offset, log_sigma, offset, jac, 0, 0)
    with pytest.raises(TypeError, match="too few or many"):
        compiled.propagate(jac)
