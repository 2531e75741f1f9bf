"""The video VAE: encoder and decoder shared by the frames, and a causal prior over the latents of all frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from causalvae_fast.graph import GumbelEdges, temporal_mask
from causalvae_fast.graph.interventions import Do
from causalvae_fast.mechanisms import LinearMechanism, MLPMechanism, NormalizedMechanism
from causalvae_fast.models.base import CausalVAE, check_edges, check_posterior, check_slope
from causalvae_fast.models.likelihood import Likelihood, check_likelihood
from causalvae_fast.models.networks import FromPixels, ToPixels, conv_decoder, conv_encoder
from causalvae_fast.posterior import Posterior
from causalvae_fast.prior import SEMPrior

MECHANISMS = ("linear", "mlp")


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of a video VAE, and where its prior starts."""

    frames: int = 3
    """Frames in a window; the last is also predicted from the ones before it."""
    latents: int = 4
    """Latents of each frame."""
    size: int = 20
    """Rows of a frame, and columns if there is no width."""
    width: int | None = None
    """Columns of a frame, where they are not as many as its rows."""
    colours: int = 3
    """Colours: 3, or 1 for grey frames, which have this dimension too."""
    background: bool = True
    """The decoder is given the background of each video; otherwise it draws whole frames."""
    convolutional: bool = False
    """Convolutional networks for frames of any size; otherwise the decoder is a perceptron."""
    channels: int = 16
    """Channels of the encoder's convolutions; of the first ones, if the networks are convolutional."""
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
    mechanism: str = "linear"
    """linear, or mlp: a network for each latent, whose outputs are normalised."""
    mechanism_hidden: int = 16
    """Units of each latent's network, if the mechanism is mlp."""
    coefficient_std: float = 0.1
    """Standard deviation of a linear mechanism's coefficients before training."""
    learn_log_sigma: bool = True
    """Learn the noise of the SEM; otherwise it is 1."""
    posterior: str = "diagonal"
    """diagonal, or full: the encoder gives a lower triangular factor of the covariance within each frame."""
    likelihood: str = "l2"
    """l2: squared error. gaussian: with a standard deviation that is learned, one for all pixels. bernoulli: of
    pixels that are 0 or 1. The last two are densities, for a reconstruction_weight of 1."""

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        for name in ("latents", "size", "channels", "hidden", "background_code", "mechanism_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width is not None and self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if self.colours not in (1, 3):
            raise ValueError(f"colours must be 1 or 3, got {self.colours}")
        if self.mechanism not in MECHANISMS:
            raise ValueError(f"mechanism must be {' or '.join(MECHANISMS)}, got {self.mechanism!r}")
        check_slope(self)
        check_edges(self)
        check_posterior(self)
        check_likelihood(self.likelihood)
        if not self.coefficient_std >= 0:
            raise ValueError(f"coefficient_std must not be negative, got {self.coefficient_std}")

    @property
    def frame(self) -> tuple[int, int, int]:
        """(H, W, C) of a frame."""
        return self.size, self.size if self.width is None else self.width, self.colours


@dataclass
class VideoTerms:
    """The terms of the loss, scalars: means over the batch, except the edges."""

    reconstruction: Tensor
    """Squared error, or minus the log density, of the decoded frames, summed over frames, pixels and colours."""
    prediction: Tensor
    """The same of the last frame decoded from f(z of the frames before)."""
    kl: Tensor
    """In nats."""
    edges: Tensor
    """Expected number of edges."""

    def named(self) -> dict[str, Tensor]:
        """Name -> term."""
        return {name: getattr(self, name) for name in ("reconstruction", "prediction", "kl", "edges")}


class VideoVAE(CausalVAE):
    """A VAE of windows of T frames (20 x 20, RGB by default), with k latents a frame.

    Latent i of frame t is node t * k + i of the SEM, whose edges point forward in time only. The encoder sees a
    frame. Where backgrounds are known, the decoder sees the latents and an encoding of the background, and gives a
    picture and an opacity for each pixel, blended over the background: otherwise latents are spent on what
    the background looks like. Without backgrounds it gives the picture.

    The encoder ends with a leaky ReLU and the decoder starts with one: a condition of the identifiability theorem.
    """

    def __init__(self, config: VideoVAEConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or VideoVAEConfig()
        height, width, colours = c.frame
        pixels = height * width
        maps = colours + c.background  # the last one is the opacity
        code = c.background_code if c.background else 0
        if c.convolutional:
            self.encoder = conv_encoder(height, width, colours, c.channels, c.hidden // 2)
        else:
            self.encoder = nn.Sequential(
                nn.Conv2d(colours, c.channels, 5, stride=2, padding=2),
                nn.LeakyReLU(),
                nn.Conv2d(c.channels, c.channels, 3, padding=1),
                nn.LeakyReLU(),
                nn.Flatten(),
                nn.Linear(c.channels * ((height + 1) // 2) * ((width + 1) // 2), c.hidden // 2),
                nn.LeakyReLU(),
            )
        self.make_heads(c.hidden // 2, c.latents, c.negative_slope, c.posterior)
        if c.background:
            self.encode_background = _background_encoder(c)
        self.decoder_start = nn.LeakyReLU(c.negative_slope)
        if c.convolutional:
            layers = conv_decoder(c.latents + code, height, width, maps, c.channels, c.hidden)
            self.decoder = nn.Sequential(layers, ToPixels())
        else:
            self.decoder = nn.Sequential(
                nn.Linear(c.latents + code, c.hidden),
                nn.LeakyReLU(),
                nn.Linear(c.hidden, c.hidden),
                nn.LeakyReLU(),
                nn.Linear(c.hidden, maps * pixels),
            )
        self.likelihood = Likelihood(c.likelihood)
        self.prior = _prior(c)

    def encode(self, x: Tensor) -> Distribution:
        """Posterior of the latents of frames or windows.

        Args:
            x: (N, H, W, C) or (N, T, H, W, C), uint8, or float in [0, 1].

        Returns:
            Independent Normal, or MultivariateNormal, with batch shape (N,) and event shape (k,), or (T * k,) for
            windows, whose frames are independent.

        Raises:
            TypeError: if x is no tensor.
            ValueError: if x has another shape, dtype or range.
        """
        x = self._images("x", x, dims=(4, 5))
        if x.dim() == 4:
            return self.posterior(x.movedim(-1, 1)).distribution()
        return self._windows(x).distribution()

    def decode(self, z: Tensor, background: Tensor | None = None) -> Tensor:
        """Frames (N, T, H, W, C) in [0, 1] of latents z (N, T * k), any T >= 1, over backgrounds (N, H, W, C),
        which the model takes if and only if it was made for them.

        Raises:
            ValueError: if a shape or dtype does not fit, or a background is missing or not wanted.
        """
        k, background = self.config.latents, self._background(background)
        if z.dim() != 2 or z.shape[1] % k or z.shape[1] == 0:
            raise ValueError(f"z must have shape (N, T * {k}), got {tuple(z.shape)}")
        if background is not None and z.shape[0] != background.shape[0]:
            raise ValueError(
                f"z must have shape ({background.shape[0]}, T * {k}), a row a background, got {tuple(z.shape)}"
            )
        return self._decode(z.unflatten(1, (-1, k)), background)

    def extrapolate(self, x: Tensor, steps: int = 3, *, background: Tensor | None = None) -> Tensor:
        """The frames that come after those of x: shift the window, apply f, decode, repeat.

        Args:
            x: observed frames, (N, T, H, W, C) with T >= frames - 1, uint8 or float in [0, 1]; the last frames - 1
                are used.
            steps: frames to predict, at least 1.
            background: (N, H, W, C), if the model was made for backgrounds.

        Returns:
            (N, steps, H, W, C) in [0, 1].

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

    def intervene(self, x: Tensor, do: Do, *, background: Tensor | None = None, redraw: bool = False) -> Tensor:
        """The frames of x under the interventions `do`: encode, intervene, decode.

        Args:
            x: windows (N, T, H, W, C) of as many frames as the model has, uint8 or float in [0, 1].
            do: {node: value}; latent i of frame t is node t * k + i, a value is a number or has shape (N,).
            background: (N, H, W, C), if the model was made for backgrounds.
            redraw: draw what the interventions reach anew (`SEMPrior.intervene`), instead of keeping the noise
                of x (`SEMPrior.counterfactual`).

        Returns:
            (N, T, H, W, C) in [0, 1].

        Raises:
            ValueError: if a shape or dtype does not fit, a node of `do` is not there, or a value has another shape
                or is NaN.
        """
        x = self._images("x", x, dims=(5,))
        if x.shape[1] != self.config.frames:
            raise ValueError(f"x must have {self.config.frames} frames, got {x.shape[1]}")
        return self.decode(self.intervened(self.encode(x).mean, do, redraw=redraw), background)

    def forward(self, frames: Tensor, background: Tensor | None = None) -> VideoTerms:
        """The terms of the loss for windows (N, T, H, W, C) and backgrounds (N, H, W, C), uint8 or float."""
        c = self.config
        frames, background = self._images("frames", frames, (5,)), self._background(background)
        q = self._windows(frames)
        z = q.rsample()
        gates = self.prior.sample_edges()
        predicted = self.prior.mechanism(z, gates)[:, -c.latents :]
        decoded = self._decode(torch.cat([z, predicted], dim=1).unflatten(1, (-1, c.latents)), background)
        batch = frames.shape[0]
        return VideoTerms(
            reconstruction=self.likelihood(decoded[:, :-1], frames) / batch,
            prediction=self.likelihood(decoded[:, -1], frames[:, -1]) / batch,
            kl=self.prior.kl(q.loc, scale=q.scale, scale_tril=q.scale_tril, edges=gates, reduction="mean"),
            edges=self.prior.expected_edges(),
        )

    def _windows(self, frames: Tensor) -> Posterior:
        """Of latents (N, T * k), for windows (N, T, H, W, C) of floats."""
        return self.posterior(frames.flatten(0, 1).movedim(-1, 1)).joined(frames.shape[1])

    def _decode(self, z: Tensor, background: Tensor | None) -> Tensor:
        """(N, T, H, W, C) from z (N, T, k) and backgrounds (N, H, W, C)."""
        inputs = self.decoder_start(z)
        if background is not None:
            code = self.encode_background(background.flatten(1)).unsqueeze(1).expand(-1, z.shape[1], -1)
            inputs = torch.cat([inputs, code], dim=-1)
        height, width, colours = self.config.frame
        layers = self.decoder(inputs.flatten(0, 1)).view(*z.shape[:2], height, width, -1)
        if background is None:
            return torch.sigmoid(layers)
        # The picture starts out mostly transparent: the background alone is a good first guess.
        opacity = torch.sigmoid(layers[..., colours:] - 2)
        return torch.lerp(background.unsqueeze(1), torch.sigmoid(layers[..., :colours]), opacity)

    def _images(self, name: str, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """x as floats in [0, 1], if it has one of the numbers of dimensions and the size of a frame."""
        shapes = {4: ("N", *self.config.frame), 5: ("N", "T", *self.config.frame)}
        return self.as_floats(name, x, [shapes[n] for n in dims])

    def _background(self, background: Tensor | None) -> Tensor | None:
        if not self.config.background:
            if background is not None:
                raise ValueError("background is not taken: the model was made without backgrounds")
            return None
        if background is None:
            raise ValueError(
                "background is missing: the model takes one for each video, as data.median_background(frames)"
            )
        return self._images("background", background, (4,))


def _background_encoder(c: VideoVAEConfig) -> nn.Sequential:
    """(N, H * W * C) -> (N, background_code)."""
    height, width, colours = c.frame
    if c.convolutional:
        layers = conv_encoder(height, width, colours, c.channels, 64)
        return nn.Sequential(FromPixels(*c.frame), layers, nn.Linear(64, c.background_code))
    return nn.Sequential(nn.Linear(colours * height * width, 64), nn.LeakyReLU(), nn.Linear(64, c.background_code))


def _prior(c: VideoVAEConfig) -> SEMPrior:
    d = c.frames * c.latents
    allowed = temporal_mask(c.frames, c.latents)
    return SEMPrior(
        LinearMechanism(d, allowed, init_std=c.coefficient_std)
        if c.mechanism == "linear"
        else NormalizedMechanism(MLPMechanism(d, c.mechanism_hidden, allowed=allowed)),
        GumbelEdges(d, allowed, temperature=c.temperature, init_probability=c.edge_probability),
        learn_log_sigma=c.learn_log_sigma,
    )
