"""What each op says to arguments that it does not take: every error names the argument."""

import math
import re
from typing import Any

import pytest
import torch
from inputs import POSTERIORS, sem_inputs
from torch import Tensor

from causalvae_fast.ops import _checks, sem_kl

def changed(**changes: Any) -> dict[str, Any]:
    """Valid keyword arguments of `sem_kl` for B = 4, d = 3 and a full posterior, with changes."""
    inputs = sem_inputs(4, 3)
    return dict(zip(("jac", "offset", "log_sigma", "loc", "scale_tril"), inputs, strict=True)) | changes


ones = torch.ones
ERRORS: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "neither_scale": (ValueError, "scale and scale_tril, got neither", {"scale_tril": None}),
    "both_scales": (ValueError, "scale and scale_tril, got scale and", {"scale": ones(4, 3).double()}),
    "unknown_reduction": (ValueError, "reduction must be one of .* got 'batchmean'", {"reduction": "batchmean"}),
    "unknown_backend": (ValueError, "backend: .* 'gpu'.* reference, cpu", {"backend": "gpu"}),
    "jac_no_tensor": (TypeError, "jac must be a tensor, got list", {"jac": [[0.0]]}),
    "loc_no_tensor": (TypeError, "loc must be a tensor, got float", {"loc": 0.0}),
    "loc_integer": (TypeError, "loc must be float32 or float64, got torch.int64", {"loc": ones(4, 3).long()}),
    "loc_half": (TypeError, "loc must be float32 or float64, got torch.float16", {"loc": ones(4, 3).half()}),
    "jac_dtype": (TypeError, "jac has dtype torch.float32, but loc has torch.float64", {"jac": ones(3, 3)}),
    "offset_dtype": (TypeError, "offset has dtype", {"offset": ones(3)}),
    "log_sigma_dtype": (TypeError, "log_sigma has dtype", {"log_sigma": ones(3)}),
    "scale_tril_dtype": (TypeError, "scale_tril has dtype", {"scale_tril": ones(4, 3, 3)}),
    "jac_device": (ValueError, "jac is on meta, but loc is on cpu", {"jac": ones(3, 3).double().to("meta")}),
    "loc_vector": (ValueError, r"loc must have shape \(B, d\), got \(3,\)", {"loc": ones(3).double()}),
    "loc_no_latents": (ValueError, r"loc must have shape \(B, d\)", {"loc": ones(4, 0).double()}),
    "jac_size": (ValueError, r"jac must have shape \(4, 3, 3\) or \(3, 3\)", {"jac": ones(2, 2).double()}),
    "jac_batch_of_1": (ValueError, r"jac must have .* got \(1, 3, 3\)", {"jac": ones(1, 3, 3).double()}),
    "offset_size": (ValueError, r"offset must have shape \(4, 3\) or \(3,\)", {"offset": ones(4).double()}),
    "log_sigma_scalar": (ValueError, r"log_sigma must have shape \(3,\)", {"log_sigma": ones(()).double()}),
    "log_sigma_batch": (ValueError, r"log_sigma must have shape", {"log_sigma": ones(4, 3).double()}),
    "scale_tril_size": (
        ValueError,
        r"scale_tril must have shape \(4, 3, 3\)",
        {"scale_tril": ones(4, 3).double()},
    ),
    "scale_tril_shared": (ValueError, r"scale_tril must have", {"scale_tril": ones(3, 3).double()}),
    "scale_size": (ValueError, r"scale must .* \(4, 3\)", {"scale": ones(3).double(), "scale_tril": None}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error(case: str) -> None:
    error, message, changes = ERRORS[case]
    with pytest.raises(error, match=f"^.*{message}"):
        sem_kl(**changed(**changes))


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("number", [0.0, -1.0, math.nan])
def test_validate_args(number: float, posterior: str) -> None:
    inputs = sem_inputs(4, 3, posterior)
    assert torch.equal(inputs.call(sem_kl, validate_args=True), inputs.call(sem_kl))
    inputs = sem_inputs(17, 3, posterior)
    set_scale(inputs, number)
    with pytest.raises(ValueError, match=f"^{inputs.factor_name} must be above 0, .* latent 1 of sample 9"):
        inputs.call(sem_kl, validate_args=True)
    assert not inputs.call(sem_kl)[9].isfinite()
