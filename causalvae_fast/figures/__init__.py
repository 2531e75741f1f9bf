"""Figures of a trained model. Each function takes arrays and a path, writes a PNG and returns its path."""

from causalvae_fast.figures.extrapolation import draw_extrapolation
from causalvae_fast.figures.graph import draw_graph
from causalvae_fast.figures.latent_response import draw_latent_response

__all__ = ["draw_extrapolation", "draw_graph", "draw_latent_response"]
