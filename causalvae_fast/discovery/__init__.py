"""Causal discovery on observed variables: which graph gave rise to the data, and how sure that is."""

from causalvae_fast.discovery.discover import discover
from causalvae_fast.discovery.result import Candidate, Discovery

__all__ = ["Candidate", "Discovery", "discover"]
