"""The choice of a backend: by the call, the context, the environment, or by default; never in silence."""

import re
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from inputs import SEMInputs, sem_inputs

import causalvae_fast as cvf
from causalvae_fast.ops import _backend, _native, _triton, sem_kl
from causalvae_fast.ops._backend import VARIABLE, choose_backend
from causalvae_fast.ops._fused import Kernels
from causalvae_fast.ops._native import NotBuiltError
from causalvae_fast.ops._triton import NotUsableError
from causalvae_fast.ops.sem_kl.autograd import sem_kl_op
from causalvae_fast.ops.sem_kl.cpu import sem_kl_cpu

CAUSE = "libgomp.so.1: cannot open shared object file"


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    _backend._warn_once.cache_clear()


@pytest.fixture
def inputs() -> SEMInputs:
    return sem_inputs(4, 3, dtype=torch.float32)


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the compiled modules could not be loaded."""
    monkeypatch.setattr(_native, "_load", lambda name: ImportError(CAUSE))
    monkeypatch.setattr(_native, "_found", None)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that served calls of `sem_kl`, as they happen."""
    calls: list[str] = []

    def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            return function(*args)

        return call

    forward, backward, both = sem_kl_op.kernels["cpu"]
    assert both is not None
    kernels = Kernels(recorded("cpu", forward), recorded("cpu", backward), recorded("cpu", both))
    monkeypatch.setitem(sem_kl_op.kernels, "cpu", kernels)
    monkeypatch.setattr(sem_kl_op, "reference", recorded("reference", sem_kl_op.reference))
    return calls


def test_default_is_the_compiled_one(inputs: SEMInputs, served: list[str]) -> None:
    inputs.call(sem_kl)
    assert served == ["cpu"]
    assert choose_backend("propagate", None, "cuda") == "reference"


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_each_way_to_ask(inputs: SEMInputs, served: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    inputs.call(sem_kl, backend=name)
    with cvf.use_backend(name):
        inputs.call(sem_kl)
    monkeypatch.setenv(VARIABLE, name)
    inputs.call(sem_kl)
    assert served == [name] * 3


def test_the_call_goes_before_the_context_before_the_variable(
    inputs: SEMInputs, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    with cvf.use_backend("reference"):
        inputs.call(sem_kl)
        inputs.call(sem_kl, backend="cpu")
        with cvf.use_backend("cpu"):
            inputs.call(sem_kl)
        inputs.call(sem_kl)
    inputs.call(sem_kl)
    assert served == ["reference", "cpu", "cpu", "reference", "cpu"]


def test_the_context_ends_with_an_error(inputs: SEMInputs, served: list[str]) -> None:
    with pytest.raises(KeyError), cvf.use_backend("reference"):
        raise KeyError
    inputs.call(sem_kl)
    assert served == ["cpu"]


def test_the_context_is_of_its_thread(inputs: SEMInputs, served: list[str]) -> None:
    with cvf.use_backend("reference"):
        thread = threading.Thread(target=lambda: inputs.call(sem_kl))
        thread.start()
        thread.join()
    assert served == ["cpu"]


def test_an_empty_variable_is_no_choice(
    inputs: SEMInputs, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    inputs.call(sem_kl)
    assert served == ["cpu"]


def test_unknown_names_say_where_they_come_from(inputs: SEMInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^backend: .*'tpu'.*reference, cpu"):
        inputs.call(sem_kl, backend="tpu")
    with pytest.raises(ValueError, match=r"^use_backend: .*'tpu'.*reference, cpu"), cvf.use_backend("tpu"):
        pass
    monkeypatch.setenv(VARIABLE, "tpu")
    with pytest.raises(ValueError, match=rf"^the variable {VARIABLE}: .*'tpu'.*reference, cpu"):
        inputs.call(sem_kl)


def test_cpu_takes_tensors_on_the_cpu() -> None:
    with pytest.raises(ValueError, match=r"^backend: 'cpu' takes tensors on the CPU, but they are on cuda"):
        choose_backend("sem_kl", "cpu", "cuda")


@pytest.mark.usefixtures("not_built")
def test_a_backend_that_was_asked_for_never_falls_back(
    inputs: SEMInputs, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotBuiltError, match=CAUSE):
        inputs.call(sem_kl, backend="cpu")
    with pytest.raises(NotBuiltError, match=CAUSE), cvf.use_backend("cpu"):
        inputs.call(sem_kl)
    monkeypatch.setenv(VARIABLE, "cpu")
    with pytest.raises(NotBuiltError, match=CAUSE) as error:
        inputs.call(sem_kl)
    assert isinstance(error.value.__cause__, ImportError)
    assert served == []


@pytest.mark.usefixtures("not_built")
def test_the_default_falls_back_with_one_warning(inputs: SEMInputs, served: list[str]) -> None:
    with pytest.warns(UserWarning, match=f"reference backend.*{CAUSE}") as caught:
        values = [inputs.call(sem_kl) for _ in range(2)]
    assert len(caught) == 1
    assert served == ["reference"] * 2
    assert torch.equal(values[0], inputs.call(sem_kl, backend="reference"))


@pytest.mark.usefixtures("not_built")
def test_asking_for_the_reference_warns_of_nothing(inputs: SEMInputs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs.call(sem_kl, backend="reference")


# Triton: not installed, without a GPU, or interpreted.


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_triton, "_load", lambda: ImportError("No module named 'triton'"))
    _triton.interpreted.cache_clear()
    yield
    _triton.interpreted.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is there and compiles, but nothing to run on."""
    module = types.ModuleType("triton")
    module.__version__ = "3.9.9"  # type: ignore[attr-defined]
    monkeypatch.setattr(_triton, "_load", lambda: module)
    monkeypatch.setattr(_triton, "interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_triton")
def test_triton_is_not_installed(inputs: SEMInputs, served: list[str]) -> None:
    message = r"Triton is not installed \(No module named 'triton'\): pip install 'causalvae_fast\[triton\]'"
    with pytest.raises(NotUsableError, match=message):
        inputs.call(sem_kl, backend="triton")
    with pytest.raises(NotUsableError, match=message), cvf.use_backend("triton"):
        inputs.call(sem_kl)
    assert served == []
    status = cvf.backends()["sem_kl"]["triton"]
    assert not status.available
    assert re.fullmatch(message, status.detail)
    with pytest.warns(UserWarning, match=f"reference backend.*{message}"):
        assert choose_backend("sem_kl", None, "cuda") == "reference"


@pytest.mark.usefixtures("no_gpu")
def test_triton_has_no_gpu(inputs: SEMInputs, served: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r"^backend: 'triton' takes tensors on a CUDA device, but they are on cpu"
    ):
        inputs.call(sem_kl, backend="triton")
    with pytest.raises(NotUsableError, match=r"Triton 3\.9\.9 is installed, but PyTorch sees no CUDA device"):
        choose_backend("sem_kl", "triton", "cuda")
    assert served == []
    assert not cvf.backends()["pivot_kl"]["triton"].available
    with pytest.warns(UserWarning, match="sees no CUDA device"):
        assert choose_backend("sem_kl", None, "cuda") == "reference"


@pytest.mark.skipif(not _triton.interpreted(), reason="Triton is not installed, or compiles")
def test_triton_is_interpreted(inputs: SEMInputs, served: list[str]) -> None:
    """It serves tensors on the CPU, where it is asked to; the default there stays what it is."""
    torch.testing.assert_close(inputs.call(sem_kl, backend="triton"), inputs.call(sem_kl, backend="reference"))
    inputs.call(sem_kl)
    assert served == ["reference", "cpu"]
    assert "interpreted, on the CPU" in cvf.backends()["sem_kl"]["triton"].detail


def test_an_op_without_kernels_in_triton() -> None:
    with pytest.raises(ValueError, match="backend: 'triton' does not serve propagate, which has reference, cpu"):
        choose_backend("propagate", "triton", "cuda")


def test_backends() -> None:
    no_ops = {"BackendStatus", "backends", "use_backend", "pack_tril", "unpack_tril"}
    assert cvf.backends().keys() == set(cvf.ops.__all__) - no_ops
    status = cvf.backends()["sem_kl"]
    assert status["reference"].available
    assert status["cpu"].available
    assert _native.cpu().isas()[-1] in status["cpu"].detail


def test_backends_are_printed_in_lines() -> None:
    lines = repr(cvf.backends()).splitlines()
    assert lines[lines.index("sem_kl") + 1] == "  reference available: plain PyTorch, on any device"
    assert len(lines) == sum(1 + len(statuses) for statuses in cvf.backends().values())


@pytest.mark.usefixtures("not_built")
def test_backends_say_why_one_is_not_available() -> None:
    status = cvf.backends()["sem_kl"]
    assert status["reference"].available
    assert not status["cpu"].available
    assert CAUSE in status["cpu"].detail


def test_a_module_that_is_missing_is_named() -> None:
    with pytest.raises(NotBuiltError, match=r"causalvae_fast\._tpu cannot be loaded .*make build"):
        _native.load("_tpu")


def test_an_instruction_set_that_is_not_here() -> None:
    with pytest.raises(ValueError, match=r"isa must be .* got 'sse2'"):
        sem_kl_cpu(*sem_inputs(1, 2), isa="sse2")
