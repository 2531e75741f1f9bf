"""The layer: a structural equation model as the prior of a VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from causalvae_fast import ops
from causalvae_fast.distribution import SEMDistribution, initial_log_sigma
from causalvae_fast.divergence import Centre, Closest, Divergence, Estimator, Pivot, draw_noise, log_density
from causalvae_fast.graph import GumbelEdges
from causalvae_fast.graph.convert import to_adjacency, to_networkx
from causalvae_fast.graph.interventions import Do, intervention
from causalvae_fast.graph.masks import check_gates
from causalvae_fast.mechanisms import Mechanism
from causalvae_fast.ops._autocast import in_float32
from causalvae_fast.ops._checks import check_integer, check_not_broadcast
from causalvae_fast.posterior import Posterior, parameters_of

if TYPE_CHECKING:
    import networkx

Reduction = Literal["none", "mean", "sum"]


class SEMPrior(nn.Module):
    """Prior over d latents z_i = f_i(z_1 .. z_{i-1}) + n_i, with noise n_i ~ N(0, sigma_i^2).

    Around a pivot, f is replaced by its first-order expansion A z + b. Then the prior is the Gaussian
    N(W^-1 b, W^-1 diag(sigma^2) W^-T) with W = I - A (Theorem 2), and its KL divergence from a Gaussian
    posterior needs triangular products only (`ops.sem_kl`). For a linear mechanism this is exact. Without
    edges, and with log_sigma = 0, the prior is N(0, I). Under autocast, everything is computed in float32.

    For other mechanisms the divergence depends on where f is expanded; docs/pivots.md has measurements.

    - `pivot="posterior_mean"`: at the mean of each posterior. Exact up to the curvature of f inside of it.
    - `pivot="posterior_sample"`: at a posterior sample, the one the decoder gets if `kl(..., z=z)` is told.
    - `pivot="ancestral"`: at `pivots` samples z0 of the SEM, shared by the batch, whose local Gaussians are
      reduced by `closest`: "logsumexp", the bound for the mixture of them, or "min", the closest one.
      `centre="pivot"`, b = z0 - A z0, puts the mean of each Gaussian on its pivot. It is not exact for a linear
      SEM, as it counts the pivot's noise twice; `centre="mean"`, b = f(z0) - A z0, is, but found the graph
      of a parabola less often (docs/pivots.md).
    - `estimator="monte_carlo"`: log q(z) - log p(z) at a posterior sample z, without any expansion: unbiased, with
      the variance of one sample.

    Args:
        mechanism: f, with its `d`. See `LinearMechanism`.
        edges: learned gates on the edges, or None where every edge of the mechanism is there.
        pivot: where f is expanded: "posterior_mean", "posterior_sample" or "ancestral".
        estimator: "linearized" or "monte_carlo".
        pivots: number of ancestral pivots, at least 1.
        closest: how ancestral pivots are reduced, "logsumexp" or "min".
        centre: of the local Gaussians of ancestral pivots, "pivot" or "mean".
        log_sigma: logarithm of the noise's standard deviation, one number or (d,).
        learn_log_sigma: make it a parameter; otherwise it is a fixed buffer.

    Raises:
        TypeError: if `mechanism`, `edges` or `log_sigma` is of another type.
        ValueError: if `edges` or `log_sigma` does not fit the mechanism's d, if `log_sigma` is not finite or has a
            gradient, or a choice is another than it takes.

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
        pivot: Pivot = "posterior_mean",
        estimator: Estimator = "linearized",
        pivots: int = 16,
        closest: Closest = "logsumexp",
        centre: Centre = "pivot",
        log_sigma: float | Tensor = 0.0,
        learn_log_sigma: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(mechanism, Mechanism):
            raise TypeError(
                f"mechanism must be a Mechanism, as LinearMechanism(d), got {type(mechanism).__name__}"
            )
        d, nodes = mechanism.d, mechanism.allowed.shape[0]
        if edges is not None and not isinstance(edges, GumbelEdges):
            raise TypeError(
                f"edges must be GumbelEdges, as GumbelEdges({nodes}), got {type(edges).__name__}: a known "
                "graph is `allowed` of the mechanism"
            )
        if edges is not None and edges.d != nodes:
            of_a_window = "" if nodes == d else " in its window"
            raise ValueError(f"edges has {edges.d} nodes, but mechanism has {nodes}{of_a_window}")
        log_sigma = initial_log_sigma(log_sigma, d)
        self.divergence = Divergence(pivot, estimator, pivots, closest, centre)
        self.mechanism = mechanism
        self.edges = edges
        if learn_log_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        """What a prior does has names.

        Raises:
            TypeError: always.
        """
        raise TypeError("a prior is not called: use prior.kl(...), prior.log_prob(z) or prior.rsample((n,))")

    @property
    def d(self) -> int:
        """Number of latents."""
        return self.mechanism.d

    def sample_edges(self) -> Tensor | None:
        """Gates (d, d), (child, parent), to share between calls: relaxed in training, 0 or 1 in evaluation.

        None if the prior has no learned edges. Those of a `TemporalMechanism` are the ones of its window.
        """
        return None if self.edges is None else self.edges()

    def _gates(self, edges: Tensor | None) -> Tensor | None:
        if edges is None:
            return self.sample_edges()
        if not isinstance(edges, Tensor):
            raise TypeError(f"edges must be a tensor, got {type(edges).__name__}")
        if edges.shape != self.mechanism.allowed.shape:
            expected = tuple(self.mechanism.allowed.shape)
            raise ValueError(f"edges must have shape {expected}, got {tuple(edges.shape)}")
        check_gates(edges, self.mechanism.allowed, None if self.edges is None else self.edges.allowed)
        return edges if edges.is_floating_point() else edges.to(self.log_sigma.dtype)

    def kl(
        self,
        loc: Tensor | Distribution,
        *,
        scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
        z: Tensor | None = None,
        edges: Tensor | None = None,
        reduction: Reduction = "none",
        validate_args: bool = False,
    ) -> Tensor:
        """KL(q || prior) of Gaussian posteriors q = N(loc, L L^T), in the way that the prior was made for.

        Args:
            loc: posterior means (B, d); or q itself, a Normal with batch shape (B, d), an Independent(Normal,
                1) or MultivariateNormal with batch shape (B,) and event shape (d,).
            scale: posterior standard deviations (B, d), above 0, of a diagonal posterior.
            scale_tril: Cholesky factors L (B, d, d) with positive diagonal, of a full one. What stands above
                the diagonal is ignored. Or packed, (B, d (d + 1) / 2), as by `ops.pack_tril`.
            z: samples (B, d) of the posteriors, as the decoder gets them, where the way needs one; it draws its
                own if None.
            edges: gates (d, d), (child, parent), in [0, 1], as from `sample_edges`; drawn here if None. A graph
                that is known is `adjacency().mT`. Checked where that costs next to nothing: on the CPU, outside of
                torch.compile, and without a gradient, as gates in training have.
            reduction: "none", "mean" or "sum" over the batch. Inside of torch.utils.checkpoint use "none" and
                reduce outside of it: for "mean" and "sum" the gradients are computed in the first forward pass,
                and kept.
            validate_args: check that scales are positive, which reads them once more. Otherwise one that is not
                gives NaN or inf for its sample.

        Returns:
            (B,), or a scalar for "mean" and "sum"; in nats.

        Raises:
            TypeError: if q is another distribution or the dtypes differ.
            ValueError: if a shape or an edge does not fit, if not exactly one of `scale` and `scale_tril` is
                given, or, with `validate_args`, if a scale is not positive.
        """
        if isinstance(loc, Distribution):
            if scale is not None or scale_tril is not None:
                raise ValueError("scale and scale_tril are part of the distribution: pass kl(q) alone")
            loc, scale, scale_tril = parameters_of(loc)
        return self._kl(loc, scale, scale_tril, z, edges, reduction, validate_args)

    @in_float32
    def _kl(
        self,
        loc: Tensor,
        scale: Tensor | None,
        scale_tril: Tensor | None,
        z: Tensor | None,
        edges: Tensor | None,
        reduction: str,
        validate_args: bool,
    ) -> Tensor:
        self._check_latents("loc", loc)
        if z is not None:
            self._check_latents("z", z)
            if z.shape != loc.shape:
                raise ValueError(f"z must have the shape of loc, {tuple(loc.shape)}, got {tuple(z.shape)}")
        check_not_broadcast("scale", scale, loc)
        posterior = Posterior(loc, scale, scale_tril)
        gates = self._gates(edges)
        return self.divergence(self.mechanism, gates, self.log_sigma, posterior, z, reduction, validate_args)

    @in_float32
    def log_prob(self, z: Tensor, *, edges: Tensor | None = None) -> Tensor:
        """log p(z) = sum_i log N(z_i; f_i(z), sigma_i^2), (B,), for z (B, d). Exact for any mechanism.

        The density of the noise that `abduct` gives: a `NormalizedMechanism` takes its running statistics, in
        training too, and does not update them.
        """
        self._check_latents("z", z)
        return log_density(self.mechanism.abduct(z, self._gates(edges)), self.log_sigma)

    def distribution(self, *, edges: Tensor | None = None) -> SEMDistribution:
        """The prior as a torch.distributions.Distribution, with gates drawn once, unless `edges` has them.

        torch.distributions.kl_divergence(q, it) is `kl(q)`.
        """
        return SEMDistribution(self, self._gates(edges))

    @in_float32
    def rsample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        do: Do | None = None,
        edges: Tensor | None = None,
    ) -> Tensor:
        """Samples (*sample_shape, d) of the SEM, differentiable in its parameters.

        Args:
            sample_shape: as in torch.distributions.
            do: interventions {node: value}; a value is a number or has shape sample_shape. The node's
                equation is replaced by the value, so that its parents do not influence it.
            edges: gates (d, d), (child, parent), as from `sample_edges`; drawn here if None.

        Raises:
            TypeError: if `sample_shape` is a number, or has something else than integers.
            ValueError: if a size is negative, a node of `do` is not in 0 .. d - 1, or a value has another shape or
                is not finite.
        """
        if not isinstance(sample_shape, Sequence):
            raise TypeError(f"sample_shape must be a tuple of sizes, as (3,), got {sample_shape!r}")
        for size in sample_shape:
            check_integer("a size of sample_shape", size, 0)
        shape = torch.Size(sample_shape)
        noise = draw_noise(shape.numel(), self.log_sigma)
        mask, values = intervention(do, noise, shape)
        z = self.mechanism.solve(noise, self._gates(edges), mask, values)
        return z.reshape(*shape, self.d)

    @in_float32
    def abduct(self, z: Tensor, *, edges: Tensor | None = None) -> Tensor:
        """The noise n = z - f(z), (B, d), that explains z (B, d)."""
        self._check_latents("z", z)
        return self.mechanism.abduct(z, self._gates(edges))

    @in_float32
    def counterfactual(self, z: Tensor, do: Do, *, edges: Tensor | None = None) -> Tensor:
        """What z (B, d) would have been under the interventions `do`, (B, d): abduct, intervene, predict.

        The noise is that of z. A value of `do` is a number or has shape (B,). Nodes that the interventions do not
        reach come out as they are in z up to rounding; `intervene` keeps them bit by bit.

        Raises:
            ValueError: if z has another shape, a node of `do` is not in 0 .. d - 1, or a value has another
                shape or is not finite.
        """
        self._check_latents("z", z)
        gates = self._gates(edges)
        noise = self.mechanism.abduct(z, gates)
        mask, values = intervention(do, noise, z.shape[:1])
        return self.mechanism.solve(noise, gates, mask, values)

    @in_float32
    def intervene(self, z: Tensor, do: Do, *, edges: Tensor | None = None) -> Tensor:
        """Samples (B, d) under the interventions `do`, given what they leave as it is in z (B, d).

        Descendants of the replaced nodes are drawn anew, with noise of their own; all other nodes stay as in z,
        bit by bit. See `counterfactual` for the noise of z. A value of `do` is a number or has shape (B,). Which
        nodes are reached is read from the gates, where torch.compile breaks its graph. In training, relaxed gates
        are never 0, so that every allowed edge counts: call eval() first.

        Raises:
            ValueError: as in `counterfactual`.
        """
        self._check_latents("z", z)
        gates = self._gates(edges)
        mask, values = intervention(do, z, z.shape[:1])
        if mask is None or values is None:
            return z.clone()
        known = ~self.mechanism.descendants(mask, gates) | mask
        return self.mechanism.solve(draw_noise(len(z), self.log_sigma), gates, known, torch.where(mask, values, z))

    @in_float32
    def extrapolate(
        self, z: Tensor, steps: int = 1, *, latents: int | None = None, edges: Tensor | None = None
    ) -> Tensor:
        """The time steps after z, (B, steps * latents), without noise: shift the window, apply f, repeat.

        Args:
            z: the time steps so far, (B, T * latents); as many as the mechanism looks back, or more.
            steps: time steps to predict, at least 1.
            latents: nodes of a time step. A `TemporalMechanism` knows; the nodes of another mechanism are a window
                of time steps, the last of which is predicted.
            edges: gates, as from `sample_edges`; drawn here if None.

        Raises:
            TypeError: if `latents` is needed.
            ValueError: if the shape of z, `steps` or `latents` does not fit.
        """
        latents = getattr(self.mechanism, "latents", None) if latents is None else latents
        if latents is None:
            raise TypeError(
                "extrapolate needs latents, the number of nodes of a time step: give it, or make the prior with "
                "TemporalMechanism"
            )
        return self.mechanism.extrapolate(z, steps, latents, self._gates(edges))

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

        0 where the mechanism allows none; without learned edges, 1 everywhere else. Here and in what follows, the
        nodes of a `TemporalMechanism` are those of its window.
        """
        allowed = self.mechanism.allowed.to(self.log_sigma.dtype)
        return allowed if self.edges is None else allowed * self.edges.probabilities()

    def expected_edges(self) -> Tensor:
        """Expected number of edges, a scalar: the sparsity penalty. Differentiable."""
        return self.edge_probabilities().sum()

    def adjacency(self, threshold: float = 0.5) -> Tensor:
        """Boolean adjacency matrix (d, d) as in networkx: [i, j] is true if the edge i -> j has a probability
        above `threshold`.

        Raises:
            ValueError: if `threshold` is outside of [0, 1).
        """
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be at least 0 and below 1, got {threshold}")
        return to_adjacency(self.edge_probabilities() > threshold)

    def to_networkx(self, threshold: float = 0.5, names: Sequence[str] | None = None) -> networkx.DiGraph:
        """The graph of `adjacency`, with the `probability` of each edge and its `coefficient` if it is linear.

        Args:
            threshold: on the probability of an edge, in [0, 1).
            names: of the nodes; their numbers by default.

        Raises:
            ImportError: if networkx is not installed.
            ValueError: if `threshold` is outside of its range, or `names` does not name each node once.
        """
        attributes = {"probability": self.edge_probabilities()}
        coefficients = getattr(self.mechanism, "coefficients", None)
        if coefficients is not None:
            attributes["coefficient"] = coefficients()
        return to_networkx(self.adjacency(threshold), attributes, names)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in vars(self.divergence).items())

    def _check_latents(self, name: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.dim() != 2 or value.shape[1] != self.d:
            remedy = ": flatten the leading dimensions" if value.dim() > 2 and value.shape[-1] == self.d else ""
            raise ValueError(f"{name} must have shape (B, {self.d}), got {tuple(value.shape)}{remedy}")
        if value.dtype != self.log_sigma.dtype:
            raise TypeError(
                f"{name} has dtype {value.dtype}, but the prior {self.log_sigma.dtype}: convert {name} to that"
            )
