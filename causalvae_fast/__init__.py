"""A causal prior for variational autoencoders, with fused kernels.

>>> import torch, causalvae_fast as cvf
>>> prior = cvf.SEMPrior(cvf.LinearMechanism(4), cvf.GumbelEdges(4))
>>> kl = prior.kl(torch.zeros(8, 4), scale=torch.ones(8, 4))  # (8,)
"""

from causalvae_fast import ops
from causalvae_fast.graph import GumbelEdges, temporal_mask
from causalvae_fast.mechanisms import LinearMechanism
from causalvae_fast.ops import backends, use_backend
from causalvae_fast.prior import SEMPrior

__all__ = [
    "GumbelEdges",
    "LinearMechanism",
    "SEMPrior",
    "backends",
    "ops",
    "temporal_mask",
    "use_backend",
]

__version__ = "0.1.0"
