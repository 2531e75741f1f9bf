"""KL divergence of a Gaussian posterior from a linear(ised) structural equation model."""

from torch import Tensor

from causalvae_fast.ops.sem_kl.reference import sem_kl_reference


def sem_kl(
    jac: Tensor, offset: Tensor, log_sigma: Tensor, loc: Tensor, *,
    scale: Tensor | None = None, scale_tril: Tensor | None = None,
    reduction: str = "none", backend: str | None = None,
) -> Tensor:
    value = sem_kl_reference(jac, offset, log_sigma, loc, scale, scale_tril)
    return {"none": lambda v: v, "mean": Tensor.mean, "sum": Tensor.sum}[reduction](value)
