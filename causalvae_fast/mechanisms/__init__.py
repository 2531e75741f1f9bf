"""Mechanisms: the functions of a structural equation model, and their linearisation."""

from causalvae_fast.mechanisms.base import Mechanism
from causalvae_fast.mechanisms.linear import LinearMechanism

__all__ = ["LinearMechanism", "Mechanism"]
