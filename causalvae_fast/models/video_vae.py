"""The video VAE: encoder and decoder shared by the frames, and a causal prior over the latents of all frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from causalvae_fast.graph import GumbelEdges, temporal_mask
from causalvae_fast.graph.interventions import Do
from causalvae_fast.mechanisms import LinearMechanism
from causalvae_fast.models.base import CausalVAE
from causalvae_fast.prior import SEMPrior


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of a video VAE, and where its prior starts."""

    frames: int = 3
    """Frames in a window; the last is also predicted from the ones before it."""
    latents: int = 4
    """Latents of each frame."""
    size: int = 20
    """Pixels on each side of a frame, a multiple of 2."""
    channels: int = 16
    """Channels of the encoder's convolutions."""
    hidden: int = 256
    """Units of the hidden layers."""
    background_code: int = 16
    """Numbers in the encoding of the background that the decoder gets."""
    negative_slope: float = 0.5
    """Of the leaky ReLU that ends the encoder and of the one that starts the decoder."""
    edge_probability: float = 0.7
    """Of each edge before training."""
    temperature: float = 0.5
    """Of the Gumbel-softmax gates."""
    coefficient_std: float = 0.1
    """Standard deviation of the mechanism's coefficients before training."""
    learn_log_sigma: bool = True
    """Learn the noise of the SEM; otherwise it is 1."""

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        for name in ("latents", "channels", "hidden", "background_code"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size < 2 or self.size % 2:
            raise ValueError(f"size must be a multiple of 2, got {self.size}")
        if not 0 < self.edge_probability < 1:
            raise ValueError(f"edge_probability must lie between 0 and 1, got {self.edge_probability}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not self.coefficient_std >= 0:
            raise ValueError(f"coefficient_std must not be negative, got {self.coefficient_std}")


@dataclass
class VideoTerms:
    """The terms of the loss, scalars: means over the batch, except the edges."""

    reconstruction: Tensor
    """Squared error of the decoded frames, summed over frames, pixels and colours."""
    prediction: Tensor
    """Squared error of the last frame decoded from f(z of the frames before)."""
    kl: Tensor
    """In nats."""
    edges: Tensor
    """Expected number of edges."""

    def named(self) -> dict[str, Tensor]:
        """Name -> term."""
        return {name: getattr(self, name) for name in ("reconstruction", "prediction", "kl", "edges")}


class VideoVAE(CausalVAE):
    """A VAE of windows of T frames (20 x 20, RGB by default) over known backgrounds, with k latents a frame.

    Latent i of frame t is node t * k + i of the SEM, whose edges point forward in time only. The encoder sees a
    frame; the decoder sees the latents and an encoding of the background, and gives a picture and an opacity for
    each pixel, blended over the background: otherwise latents are spent on what the background looks like.

    The encoder ends with a leaky ReLU and the decoder starts with one: a condition of the identifiability theorem.
    """

    def __init__(self, config: VideoVAEConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or VideoVAEConfig()
        pixels = c.size * c.size
        self.encoder = nn.Sequential(
            nn.Conv2d(3, c.channels, 5, stride=2, padding=2),
            nn.LeakyReLU(),
            nn.Conv2d(c.channels, c.channels, 3, padding=1),
            nn.LeakyReLU(),
            nn.Flatten(),
            nn.Linear(c.channels * pixels // 4, c.hidden // 2),
            nn.LeakyReLU(),
        )
        self.make_heads(c.hidden // 2, c.latents, c.negative_slope)
        self.encode_background = nn.Sequential(
            nn.Linear(3 * pixels, 64), nn.LeakyReLU(), nn.Linear(64, c.background_code)
        )
        self.decoder_start = nn.LeakyReLU(c.negative_slope)
        self.decoder = nn.Sequential(
            nn.Linear(c.latents + c.background_code, c.hidden),
            nn.LeakyReLU(),
            nn.Linear(c.hidden, c.hidden),
            nn.LeakyReLU(),
            nn.Linear(c.hidden, 4 * pixels),
        )
        d = c.frames * c.latents
        allowed = temporal_mask(c.frames, c.latents)
        self.prior = SEMPrior(
            LinearMechanism(d, allowed, init_std=c.coefficient_std),
            GumbelEdges(d, allowed, temperature=c.temperature, init_probability=c.edge_probability),
            learn_log_sigma=c.learn_log_sigma,
        )

    def encode(self, x: Tensor) -> Independent:
        """Posterior of the latents of frames or windows.

        Args:
            x: (N, H, W, 3) or (N, T, H, W, 3), uint8, or float in [0, 1].

        Returns:
            Independent Normal with batch shape (N,) and event shape (k,), or (T * k,) for windows.

        Raises:
            TypeError: if x is no tensor.
            ValueError: if x has another shape, dtype or range.
        """
        x = self._images("x", x, dims=(4, 5))
        images = x if x.dim() == 4 else x.flatten(0, 1)
        loc, scale = self.posterior(images.movedim(-1, 1))
        return Independent(Normal(loc.reshape(x.shape[0], -1), scale.reshape(x.shape[0], -1)), 1)

    def decode(self, z: Tensor, background: Tensor) -> Tensor:
        """Frames (N, T, H, W, 3) in [0, 1] of latents z (N, T * k) over backgrounds (N, H, W, 3); any T >= 1.

        Raises:
            ValueError: if a shape or dtype does not fit.
        """
        background = self._images("background", background, dims=(4,))
        k = self.config.latents
        if z.dim() != 2 or z.shape[0] != background.shape[0] or z.shape[1] % k or z.shape[1] == 0:
            raise ValueError(
                f"z must have shape ({background.shape[0]}, T * {k}), a row a background, got {tuple(z.shape)}"
            )
        return self._decode(z.unflatten(1, (-1, k)), background)

    def extrapolate(self, x: Tensor, steps: int = 3, *, background: Tensor) -> Tensor:
        """The frames that come after those of x: shift the window, apply f, decode, repeat.

        Args:
            x: observed frames, (N, T, H, W, 3) with T >= frames - 1, uint8 or float in [0, 1]; the last frames - 1
                are used.
            steps: frames to predict, at least 1.
            background: (N, H, W, 3).

        Returns:
            (N, steps, H, W, 3) in [0, 1].

        Raises:
            ValueError: if a shape, dtype or `steps` does not fit.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        past, k = self.config.frames - 1, self.config.latents
        x = self._images("x", x, dims=(5,))
        if x.shape[1] < past:
            raise ValueError(f"x must have at least {past} frames, got {x.shape[1]}")
        z = self.encode(x[:, x.shape[1] - past :]).mean
        return self.decode(self.prior.extrapolate(z, steps, latents=k), background)

    def intervene(self, x: Tensor, do: Do, *, background: Tensor, redraw: bool = False) -> Tensor:
        """The frames of x under the interventions `do`: encode, intervene, decode.

        Args:
            x: windows (N, T, H, W, 3) of as many frames as the model has, uint8 or float in [0, 1].
            do: {node: value}; latent i of frame t is node t * k + i, a value is a number or has shape (N,).
            background: (N, H, W, 3).
            redraw: draw what the interventions reach anew (`SEMPrior.intervene`), instead of keeping the noise
                of x (`SEMPrior.counterfactual`).

        Returns:
            (N, T, H, W, 3) in [0, 1].

        Raises:
            ValueError: if a shape or dtype does not fit, a node of `do` is not there, or a value has another shape
                or is NaN.
        """
        x = self._images("x", x, dims=(5,))
        if x.shape[1] != self.config.frames:
            raise ValueError(f"x must have {self.config.frames} frames, got {x.shape[1]}")
        return self.decode(self.intervened(self.encode(x).mean, do, redraw=redraw), background)

    def forward(self, frames: Tensor, background: Tensor) -> VideoTerms:
        """The terms of the loss for windows (N, T, H, W, 3) and backgrounds (N, H, W, 3), uint8 or float."""
        c = self.config
        frames, background = self._images("frames", frames, (5,)), self._images("background", background, (4,))
        loc, scale = self.posterior(frames.flatten(0, 1).movedim(-1, 1))
        loc, scale = loc.reshape(frames.shape[0], -1), scale.reshape(frames.shape[0], -1)
        z = loc + scale * torch.randn_like(scale)
        gates = self.prior.sample_edges()
        predicted = self.prior.mechanism(z, gates)[:, -c.latents :]
        decoded = self._decode(torch.cat([z, predicted], dim=1).unflatten(1, (-1, c.latents)), background)
        batch = frames.shape[0]
        return VideoTerms(
            reconstruction=(decoded[:, :-1] - frames).square().sum() / batch,
            prediction=(decoded[:, -1] - frames[:, -1]).square().sum() / batch,
            kl=self.prior.kl(loc, scale=scale, edges=gates, reduction="mean"),
            edges=self.prior.expected_edges(),
        )

    def _decode(self, z: Tensor, background: Tensor) -> Tensor:
        """(N, T, H, W, 3) from z (N, T, k) and backgrounds (N, H, W, 3)."""
        size = self.config.size
        code = self.encode_background(background.flatten(1)).unsqueeze(1).expand(-1, z.shape[1], -1)
        layers = self.decoder(torch.cat([self.decoder_start(z), code], dim=-1)).unflatten(-1, (size, size, 4))
        # The picture starts out mostly transparent: the background alone is a good first guess.
        opacity = torch.sigmoid(layers[..., 3:] - 2)
        return torch.lerp(background.unsqueeze(1), torch.sigmoid(layers[..., :3]), opacity)

    def _images(self, name: str, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """x as floats in [0, 1], if it has one of the numbers of dimensions and the size of a frame."""
        image = (self.config.size, self.config.size, 3)
        shapes = {4: ("N", *image), 5: ("N", "T", *image)}
        return self.as_floats(name, x, [shapes[n] for n in dims])
