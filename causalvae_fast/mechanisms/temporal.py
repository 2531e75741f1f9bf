"""The stationary temporal mechanism: one function for all time steps."""

from __future__ import annotations

import torch
from torch import Tensor

from causalvae_fast.graph.interventions import descendants
from causalvae_fast.mechanisms.base import Mechanism, Normalization
from causalvae_fast.ops._checks import check_integer, check_positive, check_reduction, check_shape, check_tensors
from causalvae_fast.ops._fused import reduce


class TemporalMechanism(Mechanism):
    """f_t(z) = g(z_{t-p} .. z_{t-1}, z_t): the same function g at every time step t, with lag p.

    Latent k of time step t is node t * latents + k. g is a mechanism of a window of p + 1 time steps, of which
    only the last one's outputs are used; edges within a time step are there if g has them. The first p time steps
    have no parents and f = 0.

    Gates (`edges`) and `allowed` are those of the window, ((p + 1) latents)^2, shared by the time steps, so that
    they do not grow with the number of time steps; `influence` has those of all nodes. With a diagonal
    posterior, time and memory of the KL divergence, as those of sampling, grow with T; the Jacobian of all nodes
    (`linearize`, `expand`) has (T latents)^2 elements for each sample, as a full posterior has, and `influence` as
    many once. The `descendants` of a node, which `SEMPrior.intervene` asks for, are found time step by time step.

    Args:
        mechanism: g, over (p + 1) * latents nodes with p >= 1; `temporal_mask(p + 1, latents)` is what it may
            depend on, with `instantaneous=True` on its own time step too.
        frames: number T of time steps, above p.
        latents: nodes of each time step.

    Raises:
        TypeError: if `mechanism` is none, or `frames` or `latents` is no integer.
        ValueError: if its d is no multiple of `latents`, or too small, or `frames` is.

    A linear motion, z_t = 2 z_{t-1} - z_{t-2}:

    >>> from causalvae_fast import LinearMechanism
    >>> motion = LinearMechanism(3, bias=False)
    >>> _ = motion.weight.data[2].copy_(torch.tensor([-1.0, 2.0, 0.0]))
    >>> TemporalMechanism(motion, frames=5, latents=1).solve(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])).tolist()
    [[0.0, 1.0, 2.0, 3.0, 4.0]]
    """

    def __init__(self, mechanism: Mechanism, frames: int, latents: int) -> None:
        super().__init__()
        if not isinstance(mechanism, Mechanism):
            raise TypeError(f"mechanism must be a Mechanism, got {type(mechanism).__name__}")
        check_integer("frames", frames, 1)
        check_integer("latents", latents, 1)
        if mechanism.d % latents or mechanism.d < 2 * latents:
            raise ValueError(
                f"mechanism must have (lag + 1) * latents nodes with lag >= 1, got {mechanism.d} nodes and "
                f"{latents} latents"
            )
        self.lag = mechanism.d // latents - 1
        if frames <= self.lag:
            raise ValueError(f"frames must be above the lag, {self.lag}, got {frames}")
        self.mechanism, self.frames, self.latents = mechanism, frames, latents
        self.d = frames * latents
        last = torch.arange(mechanism.d) >= mechanism.d - latents
        self.register_buffer("allowed", mechanism.allowed & last.unsqueeze(-1).to(mechanism.allowed.device))

    # torch.unflatten, for torch.compile does not trace Tensor.unflatten where a default device is set.
    def windows(self, z: Tensor) -> Tensor:
        """All windows (N (T - p), (p + 1) latents) of z (N, T latents), sample by sample."""
        frames, steps = torch.unflatten(z, 1, (self.frames, self.latents)), self.frames - self.lag
        shifted = [frames[:, k : k + steps] for k in range(self.lag + 1)]  # (N, T - p, latents) each
        return torch.stack(shifted, dim=2).reshape(z.shape[0] * steps, self.mechanism.d)

    def forward(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        return self._all_frames(self.mechanism(self.windows(z), edges), z.shape[0])

    def linearize(self, z: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, jac = self.mechanism.linearize(self.windows(z), edges)
        blocks = torch.unflatten(jac, 0, (z.shape[0], self.frames - self.lag))
        return self._all_frames(value, z.shape[0]), self._unroll(blocks)

    def expand(self, pivot: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        jac, offset = self.mechanism.expand(self.windows(pivot), edges)
        steps = self.frames - self.lag
        if offset.dim() == 1:
            offset = self._all_frames(offset.expand(steps, -1), 1).squeeze(0)
        else:
            offset = self._all_frames(offset, pivot.shape[0])
        if jac.dim() == 2:
            return self._unroll(jac.expand(steps, -1, -1)), offset
        return self._unroll(torch.unflatten(jac, 0, (pivot.shape[0], steps))), offset

    def local_kl(
        self,
        pivot: Tensor,
        log_sigma: Tensor,
        loc: Tensor,
        *,
        scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
        edges: Tensor | None = None,
        reduction: str = "none",
        validate_args: bool = False,
        normalization: Normalization | None = None,
    ) -> Tensor:
        """See `Mechanism.local_kl`. For a diagonal posterior it is a sum over windows:

        KL = 1/2 sum_i ((s_i^2 + sum_j A_ij^2 s_j^2 + r_i^2) / sigma_i^2 - 1) + sum_i log sigma_i - sum_i log s_i
        """
        if scale is None or scale_tril is not None or normalization is not None:
            return super().local_kl(
                pivot,
                log_sigma,
                loc,
                scale=scale,
                scale_tril=scale_tril,
                edges=edges,
                reduction=reduction,
                validate_args=validate_args,
                normalization=normalization,
            )
        check_tensors({"loc": loc, "scale": scale, "log_sigma": log_sigma})
        check_shape("scale", scale, tuple(loc.shape))
        check_reduction(reduction)
        if validate_args:
            check_positive("scale", scale)
        jac, offset = self.mechanism.expand(self.windows(pivot), edges)
        apply = lambda matrix, x: (matrix @ x.unsqueeze(-1)).squeeze(-1)  # noqa: E731
        jac, offset = jac[..., -self.latents :, :], offset[..., -self.latents :]
        predicted = apply(jac, self.windows(loc)) + offset
        spread = apply(jac.square(), self.windows(scale.square()))
        batch, variance = loc.shape[0], scale.square()
        residual = loc - self._all_frames(predicted, batch)
        total = variance + self._all_frames(spread, batch) + residual.square()
        kl = 0.5 * (torch.exp(-2 * log_sigma) * total - 1) + log_sigma - scale.log()
        return reduce(kl.sum(-1), reduction)

    def solve(
        self,
        noise: Tensor,
        edges: Tensor | None = None,
        do_mask: Tensor | None = None,
        do_values: Tensor | None = None,
        *,
        normalization: Normalization | None = None,
    ) -> Tensor:
        k, start = self.latents, self.lag * self.latents
        first = noise[:, :start]
        if normalization is not None:
            first = first - normalization.mean[:start] * normalization.scale[:start]
        if do_mask is not None and do_values is not None:
            first = torch.where(do_mask[..., :start], do_values[..., :start], first)
        frames = list(first.split(k, dim=1))
        for begin in range(start, self.d, k):
            now = slice(begin, begin + k)
            frame = self.mechanism.finish(
                torch.cat(frames[-self.lag :], dim=1),
                noise[:, now],
                edges,
                None if do_mask is None else do_mask[..., now],
                None if do_values is None else do_values[..., now],
                normalization=None if normalization is None else normalization.of(now),
            )
            frames.append(frame)
        return torch.cat(frames, dim=1)

    def abduct(self, z: Tensor, edges: Tensor | None = None) -> Tensor:
        windows = self.windows(z)
        return z - self._all_frames(windows - self.mechanism.abduct(windows, edges), z.shape[0])

    def extrapolate(
        self, z: Tensor, steps: int, latents: int | None = None, edges: Tensor | None = None
    ) -> Tensor:
        """See `Mechanism.extrapolate`; needs the last p time steps only. `latents` is that of the mechanism."""
        if latents not in (None, self.latents):
            raise ValueError(f"latents must be {self.latents}, as in the mechanism, got {latents}")
        return self.mechanism.extrapolate(z, steps, self.latents, edges)

    def influence(self, edges: Tensor | None = None) -> Tensor:
        window = super().influence(edges)
        return self._unroll(window.expand(self.frames - self.lag, -1, -1))

    def descendants(self, nodes: Tensor, edges: Tensor | None = None) -> Tensor:
        k = self.latents
        last = super().influence(edges)[-k:]
        within = descendants(last[:, -k:], torch.eye(k, dtype=torch.bool, device=last.device)).float()  # (k, k)
        before = last[:, :-k].float()
        # What a time step is reached from: its parents, those of what is between them, and its own nodes.
        sources = torch.cat([before + within @ before, within], dim=1)  # (k, w)
        replaced = torch.unflatten(nodes, 0, (self.frames, k))
        reached = list(torch.zeros_like(replaced[: self.lag]))
        active = list(replaced[: self.lag])  # replaced or reached
        for now in replaced[self.lag :]:
            window = torch.cat([*active[-self.lag :], now])
            reached.append(sources @ window.to(sources.dtype) > 0)
            active.append(reached[-1] | now)
        return torch.cat(reached)

    def _all_frames(self, windows: Tensor, batch: int) -> Tensor:
        """The last time steps of the windows, (N (T - p), latents or more), after p of zeros: (N, T latents)."""
        start = self.lag * self.latents
        last = windows[:, -self.latents :].reshape(batch, self.d - start)
        return torch.cat([last.new_zeros(batch, start), last], dim=1)

    def _unroll(self, blocks: Tensor) -> Tensor:
        """Matrices (..., d, d) of all nodes from those of the windows (..., T - p, w, w), their last rows."""
        k, w = self.latents, self.mechanism.d
        begin = k * torch.arange(self.frames - self.lag, device=blocks.device)[:, None, None]
        rows = begin + self.lag * k + torch.arange(k, device=blocks.device)[:, None]
        columns = begin + torch.arange(w, device=blocks.device)
        index = (rows * self.d + columns).flatten()
        flat = blocks.new_zeros(*blocks.shape[:-3], self.d * self.d)
        filled = flat.index_copy(-1, index, blocks[..., -k:, :].flatten(-3))
        return torch.unflatten(filled, -1, (self.d, self.d))

    def extra_repr(self) -> str:
        return f"frames={self.frames}, latents={self.latents}, lag={self.lag}"
