"""Mechanisms: the functions of a structural equation model, and their linearisation."""

from causalvae_fast.mechanisms.base import Mechanism
from causalvae_fast.mechanisms.callable import CallableMechanism
from causalvae_fast.mechanisms.linear import LinearMechanism
from causalvae_fast.mechanisms.mlp import MLPMechanism
from causalvae_fast.mechanisms.normalized import NormalizedMechanism
from causalvae_fast.mechanisms.quadratic import QuadraticMechanism
from causalvae_fast.mechanisms.temporal import TemporalMechanism

__all__ = [
    "CallableMechanism",
    "LinearMechanism",
    "MLPMechanism",
    "Mechanism",
    "NormalizedMechanism",
    "QuadraticMechanism",
    "TemporalMechanism",
]
