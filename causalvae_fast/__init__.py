"""A causal prior for variational autoencoders, with fused kernels.

>>> import torch, causalvae_fast as cvf
>>> prior = cvf.SEMPrior(cvf.LinearMechanism(4), cvf.GumbelEdges(4))
>>> kl = prior.kl(torch.zeros(8, 4), scale=torch.ones(8, 4))  # (8,)
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalvae_fast import ops
from causalvae_fast.discovery import discover
from causalvae_fast.graph import GumbelEdges, temporal_mask
from causalvae_fast.mechanisms import (
    CallableMechanism,
    LinearMechanism,
    MLPMechanism,
    NormalizedMechanism,
    QuadraticMechanism,
    TemporalMechanism,
)
from causalvae_fast.ops import backends, use_backend
from causalvae_fast.prior import SEMPrior
from causalvae_fast.scale_tril import ScaleTril

__all__ = [
    "CallableMechanism",
    "GumbelEdges",
    "LinearMechanism",
    "MLPMechanism",
    "NormalizedMechanism",
    "QuadraticMechanism",
    "SEMPrior",
    "ScaleTril",
    "TemporalMechanism",
    "backends",
    "discover",
    "load",
    "ops",
    "temporal_mask",
    "use_backend",
]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from causalvae_fast import data, figures, metrics  # noqa: F401
    from causalvae_fast.models.image_vae import ImageVAE
    from causalvae_fast.models.video_vae import VideoVAE

_LAZY = ("data", "figures", "metrics")  # subpackages that are imported when first asked for


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def load(run: str | Path) -> VideoVAE | ImageVAE:
    """The trained model of a run folder, on the CPU, in evaluation mode. Reads safetensors and YAML, no pickle.

    Raises:
        ImportError: if the extra is not installed: pip install 'causalvae_fast[train]'.
        RuntimeError, ValueError: if there is no run, or one of its files cannot be used; the message names it.
    """
    try:
        from causalvae_fast.training.runs import load_run
    except ModuleNotFoundError as error:
        raise ImportError(f"load needs {error.name}: pip install 'causalvae_fast[train]'") from error
    return load_run(run).model
