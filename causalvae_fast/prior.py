"""The layer: a structural equation model as the prior of a VAE."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from causalvae_fast import ops
from causalvae_fast.graph import GumbelEdges
from causalvae_fast.graph.convert import to_adjacency, to_networkx
from causalvae_fast.mechanisms import Mechanism
from causalvae_fast.ops._autocast import in_float32

if TYPE_CHECKING:
    import networkx

Reduction = Literal["none", "mean", "sum"]


class SEMPrior(nn.Module):
    """Prior over d latents z_i = f_i(z_1 .. z_{i-1}) + n_i, with noise n_i ~ N(0, sigma_i^2).

    Around a pivot, f is replaced by its first-order expansion A z + b. Then the prior is the Gaussian
    N(W^-1 b, W^-1 diag(sigma^2) W^-T) with W = I - A (Theorem 2), and its KL divergence from a Gaussian
    posterior needs triangular products only (`ops.sem_kl`). For a linear mechanism this is exact. Without
    edges, and with log_sigma = 0, the prior is N(0, I). Under autocast, everything is computed in float32.

    Args:
        mechanism: f, with its `d`. See `LinearMechanism`.
        edges: learned gates on the edges, or None where every edge of the mechanism is there.
        log_sigma: logarithm of the noise's standard deviation, one number or (d,).
        learn_log_sigma: make it a parameter; otherwise it is a fixed buffer.

    Raises:
        ValueError: if `edges` or `log_sigma` does not fit the mechanism's d.

    The one-line replacement in a VAE with posterior N(loc, diag(scale^2)):

    >>> from causalvae_fast import GumbelEdges, LinearMechanism
    >>> prior = SEMPrior(LinearMechanism(3), GumbelEdges(3))
    >>> loc, scale = torch.zeros(2, 3), torch.ones(2, 3)
    >>> prior.kl(loc, scale=scale)
    tensor([0., 0.], grad_fn=<SemKlBackward>)
    """

    log_sigma: Tensor

    def __init__(
        self,
        mechanism: Mechanism,
        edges: GumbelEdges | None = None,
        *,
        log_sigma: float | Tensor = 0.0,
        learn_log_sigma: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(mechanism, Mechanism):
            raise TypeError(
                f"mechanism must be a Mechanism, as LinearMechanism(d), got {type(mechanism).__name__}"
            )
        d = mechanism.d
        if edges is not None and edges.d != d:
            raise ValueError(f"edges has {edges.d} nodes, but mechanism has {d}")
        if not isinstance(log_sigma, Tensor) or not log_sigma.is_floating_point():
            log_sigma = torch.as_tensor(log_sigma, dtype=torch.get_default_dtype())
        if log_sigma.shape not in ((), (d,)):
            raise ValueError(f"log_sigma must be a number or have shape ({d},), got {tuple(log_sigma.shape)}")
        log_sigma = log_sigma.detach().expand(d).clone()
        self.mechanism = mechanism
        self.edges = edges
        if learn_log_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    @property
    def d(self) -> int:
        """Number of latents."""
        return self.mechanism.d

    def sample_edges(self) -> Tensor | None:
        """Gates (d, d), (child, parent), to share between calls: relaxed in training, 0 or 1 in evaluation.

        None if the prior has no learned edges.
        """
        return None if self.edges is None else self.edges()

    def _gates(self, edges: Tensor | None) -> Tensor | None:
        if edges is None:
            return self.sample_edges()
        if not isinstance(edges, Tensor):
            raise TypeError(f"edges must be a tensor, got {type(edges).__name__}")
        if edges.shape != (self.d, self.d):
            raise ValueError(f"edges must have shape ({self.d}, {self.d}), got {tuple(edges.shape)}")
        return edges

    def kl(
        self,
        loc: Tensor | Distribution,
        *,
        scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
        edges: Tensor | None = None,
        reduction: Reduction = "none",
        validate_args: bool = False,
    ) -> Tensor:
        """KL(q || prior) of Gaussian posteriors q = N(loc, L L^T), linearised at the posterior means.

        Args:
            loc: posterior means (B, d); or q itself, a Normal with batch shape (B, d), an Independent(Normal,
                1) or MultivariateNormal with batch shape (B,) and event shape (d,).
            scale: posterior standard deviations (B, d), above 0, of a diagonal posterior.
            scale_tril: Cholesky factors L (B, d, d) with positive diagonal, of a full one. What stands above
                the diagonal is ignored.
            edges: gates (d, d), (child, parent), as from `sample_edges`; drawn here if None.
            reduction: "none", "mean" or "sum" over the batch.
            validate_args: check that scales are positive, which reads them once more. Otherwise one that is not
                gives NaN or inf for its sample.

        Returns:
            (B,), or a scalar for "mean" and "sum"; in nats.

        Raises:
            TypeError: if q is another distribution or the dtypes differ.
            ValueError: if a shape does not fit, if not exactly one of `scale` and `scale_tril` is given, or, with
                `validate_args`, if a scale is not positive.
        """
        if isinstance(loc, Distribution):
            if scale is not None or scale_tril is not None:
                raise ValueError("scale and scale_tril are part of the distribution: pass kl(q) alone")
            loc, scale, scale_tril = _gaussian_parameters(loc)
        return self._kl(loc, scale, scale_tril, edges, reduction, validate_args)

    @in_float32
    def _kl(
        self,
        loc: Tensor,
        scale: Tensor | None,
        scale_tril: Tensor | None,
        edges: Tensor | None,
        reduction: str,
        validate_args: bool,
    ) -> Tensor:
        self._check_latents("loc", loc)
        jac, offset = self.mechanism.expand(loc, self._gates(edges))
        return ops.sem_kl(
            jac,
            offset,
            self.log_sigma,
            loc,
            scale=scale,
            scale_tril=scale_tril,
            reduction=reduction,
            validate_args=validate_args,
        )

    @in_float32
    def log_prob(self, z: Tensor, *, edges: Tensor | None = None) -> Tensor:
        """log p(z) = sum_i log N(z_i; f_i(z), sigma_i^2), (B,), for z (B, d). Exact for any mechanism."""
        standardized = self.abduct(z, edges=edges) * torch.exp(-self.log_sigma)
        constant = 0.5 * self.d * math.log(2 * math.pi) + self.log_sigma.sum()
        return -0.5 * standardized.square().sum(-1) - constant

    @in_float32
    def rsample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        do: Mapping[int, float | Tensor] | None = None,
        edges: Tensor | None = None,
    ) -> Tensor:
        """Samples (*sample_shape, d) of the SEM, differentiable in its parameters.

        Args:
            sample_shape: as in torch.distributions.
            do: interventions {node: value}; a value is a number or has shape sample_shape. The node's
                equation is replaced by the value, so that its parents do not influence it.
            edges: gates (d, d), (child, parent), as from `sample_edges`; drawn here if None.

        Raises:
            TypeError: if `sample_shape` is a number.
            ValueError: if a node of `do` is not in 0 .. d - 1 or a value has another shape.
        """
        if isinstance(sample_shape, int):
            raise TypeError(f"sample_shape must be a tuple of sizes, as ({sample_shape},), got {sample_shape}")
        shape = torch.Size(sample_shape)
        noise = torch.exp(self.log_sigma) * torch.randn(
            shape.numel(), self.d, dtype=self.log_sigma.dtype, device=self.log_sigma.device
        )
        mask, values = self._intervention(do, noise, shape)
        z = self.mechanism.solve(noise, self._gates(edges), mask, values)
        return z.reshape(*shape, self.d)

    @in_float32
    def abduct(self, z: Tensor, *, edges: Tensor | None = None) -> Tensor:
        """The noise n = z - f(z), (B, d), that explains z (B, d)."""
        self._check_latents("z", z)
        return z - self.mechanism(z, self._gates(edges))

    @in_float32
    def counterfactual(
        self, z: Tensor, do: Mapping[int, float | Tensor], *, edges: Tensor | None = None
    ) -> Tensor:
        """What z (B, d) would have been under the interventions `do`, (B, d): abduct, intervene, predict.

        A value of `do` is a number or has shape (B,).

        Raises:
            ValueError: if z has another shape, a node of `do` is not in 0 .. d - 1, or a value has another
                shape.
        """
        gates = self._gates(edges)
        noise = self.abduct(z, edges=gates)
        mask, values = self._intervention(do, noise, z.shape[:1])
        return self.mechanism.solve(noise, gates, mask, values)

    @in_float32
    def local_gaussian(self, pivot: Tensor, *, edges: Tensor | None = None) -> MultivariateNormal:
        """The prior linearised at each pivot (B, d): N(W^-1 b, W^-1 diag(sigma^2) W^-T), batch shape (B,).

        Theorem 2. The factor W^-1 diag(sigma) is lower triangular, so it is the distribution's scale_tril.
        """
        self._check_latents("pivot", pivot)
        jac, offset = self.mechanism.expand(pivot, self._gates(edges))
        loc, scale_tril = ops.propagate(jac, offset, self.log_sigma)
        batch = pivot.shape[0]
        # The factor is valid by construction, and the checks of torch.distributions refuse an empty batch.
        return MultivariateNormal(
            loc=loc.expand(batch, self.d),
            scale_tril=scale_tril.expand(batch, self.d, self.d),
            validate_args=False,
        )

    def edge_probabilities(self) -> Tensor:
        """Probability (d, d) of each edge, (child, parent), in [0, 1].

        0 where the mechanism allows none; without learned edges, 1 everywhere else.
        """
        allowed = self.mechanism.allowed.to(self.log_sigma.dtype)
        return allowed if self.edges is None else allowed * self.edges.probabilities()

    def expected_edges(self) -> Tensor:
        """Expected number of edges, a scalar: the sparsity penalty. Differentiable."""
        return self.edge_probabilities().sum()

    def adjacency(self, threshold: float = 0.5) -> Tensor:
        """Boolean adjacency matrix (d, d) as in networkx: [i, j] is true if the edge i -> j has a probability
        above `threshold`.
        """
        return to_adjacency(self.edge_probabilities() > threshold)

    def to_networkx(self, threshold: float = 0.5, names: Sequence[str] | None = None) -> networkx.DiGraph:
        """The graph of `adjacency`, with the `probability` of each edge and its `coefficient` if it is linear.

        Args:
            threshold: on the probability of an edge.
            names: of the nodes; their numbers by default.

        Raises:
            ImportError: if networkx is not installed.
        """
        attributes = {"probability": self.edge_probabilities()}
        coefficients = getattr(self.mechanism, "coefficients", None)
        if coefficients is not None:
            attributes["coefficient"] = coefficients()
        return to_networkx(self.adjacency(threshold), attributes, names)

    def _intervention(
        self, do: Mapping[int, float | Tensor] | None, like: Tensor, shape: torch.Size
    ) -> tuple[Tensor | None, Tensor | None]:
        """Mask (d,) and values (N, d) of the interventions on N = shape.numel() samples, or None and None."""
        if not do:
            return None, None
        mask = torch.zeros(self.d, dtype=torch.bool, device=like.device)
        columns = list(torch.zeros_like(like).unbind(-1))
        for node, value in do.items():
            if isinstance(node, bool) or not (hasattr(node, "__index__") and 0 <= operator.index(node) < self.d):
                raise ValueError(f"do names node {node!r}, but the nodes are 0 to {self.d - 1}")
            if not isinstance(value, (int, float, Tensor)):
                raise TypeError(f"do[{node}] must be a number or a tensor, got {type(value).__name__}")
            value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
            if value.shape not in ((), shape):
                raise ValueError(
                    f"do[{node}] must be a number or have shape {tuple(shape)}, got {tuple(value.shape)}"
                )
            mask[node] = True
            columns[node] = value.expand(shape).reshape(-1)
        return mask, torch.stack(columns, dim=-1)

    def _check_latents(self, name: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.dim() != 2 or value.shape[1] != self.d:
            raise ValueError(f"{name} must have shape (B, {self.d}), got {tuple(value.shape)}")
        if value.dtype != self.log_sigma.dtype:
            raise TypeError(
                f"{name} has dtype {value.dtype}, but the prior {self.log_sigma.dtype}: convert {name} to that"
            )


def _gaussian_parameters(q: Distribution) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """loc, scale and scale_tril (one of them None) of a Gaussian posterior."""
    if isinstance(q, MultivariateNormal):
        return q.loc, None, q.scale_tril
    base = q.base_dist if isinstance(q, Independent) and q.reinterpreted_batch_ndims == 1 else q
    if isinstance(base, Normal):
        return base.loc, base.scale, None
    raise TypeError(
        f"q must be a Normal, an Independent(Normal, 1) or a MultivariateNormal, got {type(q).__name__}"
    )
