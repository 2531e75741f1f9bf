"""Edges that are learned: a relaxed Bernoulli gate on each."""

import torch
from torch import Tensor, nn

from causalvae_fast.graph.masks import check_allowed


class GumbelEdges(nn.Module):
    """A gate m_ij in [0, 1] on each allowed edge j -> i, with a learnable logit.

    In training, a call draws binary Gumbel-softmax (concrete) gates,

        m_ij = sigmoid((logit_ij + log u - log(1 - u)) / temperature),        u ~ U(0, 1),

    one draw for the whole batch. In evaluation, a gate is exactly 1 where its probability sigmoid(logit_ij)
    is above one half, else 0.

    Args:
        d: number of nodes.
        allowed: boolean mask (d, d), (child, parent), strictly lower triangular; every edge j -> i with j < i
            by default. See `temporal_mask`.
        temperature: of the relaxation, above 0. Low values give gates close to 0 and 1 and gradients of
            higher variance. It is a plain attribute, so a schedule may change it.
        init_probability: of each allowed edge before training, in (0, 1).

    Raises:
        TypeError: if d is no integer, or `allowed` no tensor.
        ValueError: if `allowed` has another shape or an edge on or above the diagonal, or if `temperature` or
            `init_probability` is outside its range.

    Source: Jang et al., Categorical Reparameterization with Gumbel-Softmax; Maddison et al., The Concrete
    Distribution (both 2017).
    """

    allowed: Tensor

    def __init__(
        self,
        d: int,
        allowed: Tensor | None = None,
        *,
        temperature: float = 0.5,
        init_probability: float = 0.5,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 < init_probability < 1:
            raise ValueError(f"init_probability must lie between 0 and 1, got {init_probability}")
        self.temperature = temperature
        self.register_buffer("allowed", check_allowed(allowed, d))
        self.logits = nn.Parameter(torch.full((d, d), init_probability).logit())

    @property
    def d(self) -> int:
        return self.allowed.shape[0]

    def forward(self) -> Tensor:
        """Gates (d, d), (child, parent), in [0, 1]; 0 where an edge is not allowed."""
        if not self.training:
            return ((self.logits > 0) & self.allowed).to(self.logits.dtype)
        tiny = torch.finfo(self.logits.dtype).tiny
        uniform = torch.rand_like(self.logits).clamp_min(tiny)
        relaxed = torch.sigmoid((self.logits + uniform.logit()) / self.temperature)
        return torch.where(self.allowed, relaxed, 0.0)

    def probabilities(self) -> Tensor:
        """Probability (d, d) of each edge, (child, parent), in [0, 1]; 0 where an edge is not allowed."""
        return torch.where(self.allowed, torch.sigmoid(self.logits), 0.0)

    def expected_edges(self) -> Tensor:
        """Expected number of edges, a scalar: the sum of their probabilities. Differentiable."""
        return self.probabilities().sum()

    def extra_repr(self) -> str:
        return f"d={self.d}, allowed={int(self.allowed.sum())} edges, temperature={self.temperature}"
