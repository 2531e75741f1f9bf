"""The image VAE: images of any size, and a causal prior over the latents of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from causalvae_fast.graph import GumbelEdges
from causalvae_fast.graph.interventions import Do
from causalvae_fast.mechanisms import LinearMechanism, MLPMechanism, NormalizedMechanism, QuadraticMechanism
from causalvae_fast.models.base import CausalVAE, check_edges, check_posterior, check_slope
from causalvae_fast.models.likelihood import Likelihood, check_likelihood
from causalvae_fast.models.networks import FromPixels, ToPixels, conv_decoder, conv_encoder, perceptron
from causalvae_fast.prior import SEMPrior

PRIORS = ("quadratic", "isotropic", "linear", "mlp")
LEARNED_PRIORS = ("linear", "mlp")


@dataclass(frozen=True)
class ImageVAEConfig:
    """Sizes of an image VAE, and its prior."""

    latents: int = 5
    """Latents of an image."""
    size: int = 64
    """Rows of an image, and columns if there is no width."""
    width: int | None = None
    """Columns of an image, where they are not as many as its rows."""
    channels: int = 1
    """Colours; with 1, images may come without this dimension."""
    convolutional: bool = False
    """Convolutional networks instead of multilayer perceptrons."""
    conv_channels: int = 16
    """Channels of the first convolution; later ones have up to four times as many."""
    hidden: int = 128
    """Units of the hidden layers."""
    encoder_layers: int = 3
    """Hidden layers of the encoder, if it is a perceptron."""
    decoder_layers: int = 4
    """Hidden layers of the decoder, if it is a perceptron."""
    negative_slope: float = 0.5
    """Of the leaky ReLU that ends the encoder and of the one that starts the decoder."""
    prior: str = "quadratic"
    """quadratic: z2 = z1^2 + noise, the other latents independent. isotropic: N(0, I), as in a plain VAE. linear
    and mlp: edges and functions are learned, linear ones, or networks whose outputs are normalised."""
    child_noise: float = 0.4
    """Standard deviation of the noise of z2 under the quadratic prior; that of the other latents is 1."""
    mechanism_hidden: int = 16
    """Units of each latent's network under the mlp prior."""
    edge_probability: float = 0.7
    """Of each learned edge before training."""
    temperature: float = 0.5
    """Of the Gumbel-softmax gates on learned edges."""
    posterior: str = "diagonal"
    """diagonal, or full: the encoder gives a lower triangular factor of the covariance."""
    likelihood: str = "l2"
    """l2: squared error. gaussian: with a standard deviation that is learned, one for all pixels. bernoulli: of
    pixels that are 0 or 1. The last two are densities, for a reconstruction_weight of 1."""

    def __post_init__(self) -> None:
        sizes = ("latents", "size", "channels", "conv_channels", "hidden", "encoder_layers", "decoder_layers")
        for name in (*sizes, "mechanism_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width is not None and self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        check_slope(self)
        check_edges(self)
        check_posterior(self)
        check_likelihood(self.likelihood)
        if self.prior not in PRIORS:
            raise ValueError(f"prior must be {', '.join(PRIORS[:-1])} or {PRIORS[-1]}, got {self.prior!r}")
        if self.prior == "quadratic" and self.latents < 2:
            raise ValueError(f"latents must be at least 2 with a quadratic prior, got {self.latents}")
        if not (math.isfinite(self.child_noise) and self.child_noise > 0):
            raise ValueError(f"child_noise must be above 0, got {self.child_noise}")

    @property
    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.size, self.size if self.width is None else self.width, self.channels


@dataclass
class ImageTerms:
    """The terms of the loss, scalars: means over the batch."""

    reconstruction: Tensor
    """Squared error, or minus the log density, summed over pixels and colours."""
    kl: Tensor
    """In nats."""
    guide: Tensor | None = None
    """Squared distance of the mean of z1 from what it is guided by, if there is anything."""
    edges: Tensor | None = None
    """Expected number of edges, if they are learned."""

    def named(self) -> dict[str, Tensor]:
        """Name -> term."""
        terms = {name: getattr(self, name) for name in ("reconstruction", "kl", "guide", "edges")}
        return {name: term for name, term in terms.items() if term is not None}


class ImageVAE(CausalVAE):
    """A VAE of images (64 x 64, one colour by default) with d latents, multilayer perceptrons on both sides, or
    convolutional networks.
    """

    def __init__(self, config: ImageVAEConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ImageVAEConfig()
        height, width, colours = c.image
        start = nn.LeakyReLU(c.negative_slope)
        if c.convolutional:
            self.encoder = nn.Sequential(
                FromPixels(*c.image), conv_encoder(height, width, colours, c.conv_channels, c.hidden)
            )
            self.make_heads(c.hidden, c.latents, c.negative_slope, c.posterior)
            layers = conv_decoder(c.latents, height, width, colours, c.conv_channels, c.hidden)
            self.decoder = nn.Sequential(start, layers, ToPixels(), nn.Sigmoid())
        else:
            pixels = math.prod(c.image)
            self.encoder = perceptron(pixels, c.hidden, c.encoder_layers)
            self.make_heads(c.hidden, c.latents, c.negative_slope, c.posterior)
            layers = perceptron(c.latents, c.hidden, c.decoder_layers)
            self.decoder = nn.Sequential(start, layers, nn.Linear(c.hidden, pixels), nn.Sigmoid())
        self.likelihood = Likelihood(c.likelihood)
        self.prior = _prior(c)

    def encode(self, x: Tensor) -> Distribution:
        """Posterior of the latents of images.

        Args:
            x: (N, H, W, C), or (N, H, W) if C = 1; uint8, or float in [0, 1].

        Returns:
            Independent Normal, or MultivariateNormal, with batch shape (N,) and event shape (d,).

        Raises:
            TypeError: if x is no tensor.
            ValueError: if x has another shape, dtype or range.
        """
        return self.posterior(self._pixels(x)).distribution()

    def decode(self, z: Tensor) -> Tensor:
        """Images (N, H, W, C) in [0, 1] of latents z (N, d).

        Raises:
            ValueError: if z has another shape.
        """
        c = self.config
        if z.dim() != 2 or z.shape[1] != c.latents:
            raise ValueError(f"z must have shape (N, {c.latents}), got {tuple(z.shape)}")
        return self.decoder(z).unflatten(1, c.image)

    def intervene(self, x: Tensor, do: Do, *, redraw: bool = False) -> Tensor:
        """The images of x under the interventions `do`: encode, intervene, decode.

        Args:
            x: (N, H, W, C), or (N, H, W) if C = 1; uint8, or float in [0, 1].
            do: {latent: value}; a value is a number or has shape (N,).
            redraw: draw what the interventions reach anew (`SEMPrior.intervene`), instead of keeping the noise
                of x (`SEMPrior.counterfactual`).

        Returns:
            (N, H, W, C) in [0, 1].

        Raises:
            ValueError: if x or `do` does not fit.
        """
        return self.decode(self.intervened(self.encode(x).mean, do, redraw=redraw))

    def forward(self, images: Tensor, opened: Tensor | None = None, guide: Tensor | None = None) -> ImageTerms:
        """The terms of the loss for images (N, H, W[, C]), uint8 or float.

        With `opened` (d,) in [0, 1], the decoder gets the latents with that part of their noise under the SEM:
        instead of one that is shut, what its parents predict, so that only what is open carries information.
        `guide` (N,) is what z1 is compared with in the term of this name.
        """
        pixels = self._pixels(images)
        q = self.posterior(pixels)
        z = q.rsample()
        if opened is not None:
            z = self.prior.mechanism.solve(opened * self.prior.abduct(z))
        return ImageTerms(
            reconstruction=self.likelihood(self.decoder(z), pixels) / len(pixels),
            kl=self.prior.kl(q.loc, scale=q.scale, scale_tril=q.scale_tril, reduction="mean"),
            guide=None if guide is None else (q.loc[:, 0] - guide).square().mean(),
            edges=None if self.prior.edges is None else self.prior.expected_edges(),
        )

    def _pixels(self, x: Tensor) -> Tensor:
        """(N, H * W * C) as floats in [0, 1]."""
        c = self.config
        shapes: list[tuple[int | str, ...]] = [("N", *c.image)]
        if c.channels == 1:
            shapes.append(("N", *c.image[:2]))
        return self.as_floats("x", x, shapes).flatten(1)


def _prior(c: ImageVAEConfig) -> SEMPrior:
    if c.prior in LEARNED_PRIORS:
        mechanism = (
            LinearMechanism(c.latents, init_std=0.1)
            if c.prior == "linear"
            else NormalizedMechanism(MLPMechanism(c.latents, c.mechanism_hidden))
        )
        edges = GumbelEdges(c.latents, temperature=c.temperature, init_probability=c.edge_probability)
        return SEMPrior(mechanism, edges, learn_log_sigma=True)
    causal = c.prior == "quadratic"
    log_sigma = torch.zeros(c.latents)
    if causal:
        log_sigma[1] = math.log(c.child_noise)
    parents = {1: 0} if causal else {}
    return SEMPrior(QuadraticMechanism(parents, d=c.latents), log_sigma=log_sigma)
