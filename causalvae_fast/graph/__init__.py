"""Graphs: which edges may exist, which are learned, and how a user gets them."""

from causalvae_fast.graph.edges import GumbelEdges
from causalvae_fast.graph.masks import temporal_mask

__all__ = ["GumbelEdges", "temporal_mask"]
