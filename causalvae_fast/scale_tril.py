"""The head of an encoder whose posteriors have full covariances."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from causalvae_fast.ops._checks import check_integer
from causalvae_fast.ops._packed import packed_size, unpack


class ScaleTril(nn.Module):
    """Turns the output of a network into the factor L of a posterior N(m, L L^T), lower triangular with a positive
    diagonal (Eq. 4 of the paper). It has no parameters.

    Below the diagonal an output stands as it is; on it, its exponential does, the output held within `log_range`.
    Outputs of 0 give the identity.

    Args:
        d: number of latents.
        packed: return the factor as `SEMPrior.kl(scale_tril=)` and the ops take it packed, which halves the memory
            of it and of its gradient.
        log_range: least and greatest logarithm of what stands on the diagonal.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d is below 1, or `log_range` is not increasing.

    >>> import torch, causalvae_fast as cvf
    >>> encoder = torch.nn.Linear(10, 2 + 3)
    >>> loc, outputs = encoder(torch.zeros(8, 10)).split([2, 3], dim=-1)
    >>> kl = cvf.SEMPrior(cvf.LinearMechanism(2)).kl(loc, scale_tril=cvf.ScaleTril(2)(outputs))  # (8,)
    """

    def __init__(self, d: int, *, packed: bool = False, log_range: tuple[float, float] = (-8.0, 3.0)) -> None:
        super().__init__()
        check_integer("d", d, 1)
        low, high = log_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"log_range must be two increasing numbers, got {log_range}")
        self.d, self.packed, self.log_range = d, packed, (low, high)

    def forward(self, outputs: Tensor) -> Tensor:
        """The factors of outputs (B, d (d + 1) / 2), rows of i + 1 numbers one behind the other.

        Returns:
            (B, d, d) with zeros above the diagonal, or (B, d (d + 1) / 2) if packed.

        Raises:
            ValueError: if the outputs have another shape.
        """
        size = packed_size(self.d)
        if outputs.dim() != 2 or outputs.shape[1] != size:
            raise ValueError(
                f"outputs must have shape (B, {size}), d (d + 1) / 2 for d = {self.d}, got {tuple(outputs.shape)}"
            )
        # Made here: a buffer that is not saved has no values after to_empty() and load_state_dict().
        rows = torch.arange(self.d, device=outputs.device)
        on_diagonal = torch.zeros(size, dtype=torch.bool, device=outputs.device)
        on_diagonal = on_diagonal.index_fill(0, rows * (rows + 3) // 2, True)
        factor = torch.where(on_diagonal, outputs.clamp(*self.log_range).exp(), outputs)
        return factor if self.packed else unpack(factor, self.d)

    def extra_repr(self) -> str:
        return f"{self.d}, packed={self.packed}, log_range={self.log_range}"
