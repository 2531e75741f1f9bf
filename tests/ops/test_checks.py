"""What each op says to arguments that it does not take: every error names the argument, what it got and takes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from inputs import POSTERIORS, sem_inputs
from torch import Tensor

from causalvae_fast.ops import sem_kl
from causalvae_fast.ops._checks import check_integer


def ones(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


# Changes of valid arguments with B = 4, d = 3 and a full posterior; and the beginning of the message, a pattern.
VALUE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "neither_scale": ({"scale_tril": None}, "give exactly one of scale and scale_tril, got neither"),
    "both_scales": ({"scale": ones(4, 3)}, "give exactly one of scale and scale_tril, got scale and scale_tril"),
    "unknown_reduction": ({"reduction": "max"}, "reduction must be one of none, mean, sum, got 'max'"),
    "unknown_backend": ({"backend": "gpu"}, "backend: there is no backend 'gpu'; choose one of reference, cpu"),
    "device": ({"jac": ones(3, 3, device="meta")}, "jac is on meta, but loc is on cpu"),
    "loc_vector": ({"loc": ones(3)}, r"loc must have shape \(B, d\), got \(3,\)"),
    "loc_no_latents": ({"loc": ones(4, 0)}, r"loc must have shape \(B, d\), got \(4, 0\)"),
    "jac_size": ({"jac": ones(2, 2)}, r"jac must have shape \(4, 3, 3\) or \(3, 3\) or .*, got \(2, 2\)"),
    "jac_batch_of_1": ({"jac": ones(1, 3, 3)}, r"jac must have shape .*, got \(1, 3, 3\)"),
    "offset_size": ({"offset": ones(4)}, r"offset must have shape \(4, 3\) or \(3,\), got \(4,\)"),
    "log_sigma_scalar": ({"log_sigma": ones()}, r"log_sigma must have shape \(3,\), got \(\)"),
    "log_sigma_batch": ({"log_sigma": ones(4, 3)}, r"log_sigma must have shape \(3,\), got \(4, 3\)"),
    "scale_tril_size": (
        {"scale_tril": ones(4, 3)},
        r"scale_tril must have shape \(4, 3, 3\) or .*, got \(4, 3\)",
    ),
    "scale_tril_shared": (
        {"scale_tril": ones(3, 3)},
        r"scale_tril must have shape \(4, 3, 3\) or .*, got \(3, 3\)",
    ),
    "scale_size": ({"scale": ones(3), "scale_tril": None}, r"scale must have shape \(4, 3\), got \(3,\)"),
}
TYPE_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "jac_list": ({"jac": [[0.0]]}, "jac must be a tensor, got list"),
    "loc_number": ({"loc": 0.0}, "loc must be a tensor, got float"),
    "log_sigma_none": ({"log_sigma": None}, "log_sigma must be a tensor, got NoneType"),
    "loc_integer": ({"loc": ones(4, 3).long()}, "loc must be float32 or float64, got torch.int64"),
    "loc_half": ({"loc": ones(4, 3).half()}, "loc must be float32 or float64, got torch.float16"),
    "loc_complex": (
        {"loc": ones(4, 3).to(torch.complex64)},
        "loc must be float32 or float64, got torch.complex64",
    ),
    "jac_dtype": ({"jac": ones(3, 3).float()}, "jac has dtype torch.float32, but loc has torch.float64"),
    "offset_dtype": ({"offset": ones(3).float()}, "offset has dtype torch.float32"),
    "log_sigma_dtype": ({"log_sigma": ones(3).float()}, "log_sigma has dtype torch.float32"),
    "scale_tril_dtype": ({"scale_tril": ones(4, 3, 3).float()}, "scale_tril has dtype torch.float32"),
}


def call(**changes: Any) -> Tensor:
    names = ("jac", "offset", "log_sigma", "loc", "scale_tril")
    return sem_kl(**(dict(zip(names, sem_inputs(4, 3), strict=True)) | changes))


def test_valid_arguments() -> None:
    assert call().shape == (4,)


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**changes)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("number", [0.0, -1.0, math.nan])
def test_validate_args(number: float, posterior: str) -> None:
    inputs = sem_inputs(4, 3, posterior)
    assert torch.equal(inputs.call(sem_kl, validate_args=True), inputs.call(sem_kl))
    diagonal = inputs.factor if posterior == "diagonal" else inputs.factor.diagonal(dim1=-2, dim2=-1)
    diagonal[2, 1] = number
    with pytest.raises(ValueError, match=rf"^{inputs.factor_name} must be above 0, got .* latent 1 of sample 2"):
        inputs.call(sem_kl, validate_args=True)
    assert not inputs.call(sem_kl)[2].isfinite()


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_any_kind(value) -> None:  # type: ignore[no-untyped-def]
    found = check_integer("steps", value, 1)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("value", [3.0, np.float32(3), "3", None, True, np.True_, torch.tensor(3)])
def test_what_is_no_integer(value) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="steps must be an integer, got "):
        check_integer("steps", value)


def test_least_integer() -> None:
    assert check_integer("steps", -5) == -5
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        check_integer("steps", 0, 1)


def test_validate_args_where_values_cannot_be_read() -> None:
    """On the meta device, and in transforms of torch.func: nothing is validated."""
    inputs = sem_inputs(4, 3, "diagonal")
    wrong = inputs._replace(factor=-inputs.factor)
    meta = type(inputs)(*(t.to("meta") for t in wrong))
    assert meta.call(sem_kl, validate_args=True).shape == (4,)

    def divergence(scale: torch.Tensor) -> torch.Tensor:
        return wrong._replace(factor=scale).call(sem_kl, validate_args=True)

    assert torch.func.vmap(divergence)(wrong.factor.expand(2, 4, 3)).shape == (2, 4)
