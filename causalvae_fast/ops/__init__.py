"""The operations: pure functions of tensors, each with a reference and compiled backends."""

from causalvae_fast.ops._backend import BackendStatus, backends, use_backend
from causalvae_fast.ops._packed import pack_tril, unpack_tril
from causalvae_fast.ops.ancestral_sample import ancestral_sample, mlp_ancestral_sample
from causalvae_fast.ops.gaussian_kl import gaussian_kl
from causalvae_fast.ops.mlp_sem_kl import mlp_sem_kl
from causalvae_fast.ops.pivot_kl import pivot_kl
from causalvae_fast.ops.propagate import propagate
from causalvae_fast.ops.sem_kl import sem_kl

__all__ = [
    "BackendStatus",
    "ancestral_sample",
    "backends",
    "gaussian_kl",
    "mlp_ancestral_sample",
    "mlp_sem_kl",
    "pack_tril",
    "pivot_kl",
    "propagate",
    "sem_kl",
    "unpack_tril",
    "use_backend",
]
