"""How good a learned graph, a set of latents and a reconstruction are. Pure functions of tensors."""

from causalvae_fast.metrics.linear_r2 import linear_r2
from causalvae_fast.metrics.pixel_r2 import pixel_r2
from causalvae_fast.metrics.psnr import psnr
from causalvae_fast.metrics.shd import shd
from causalvae_fast.metrics.shd_within_frames import AlignedSHD, shd_within_frames

__all__ = ["AlignedSHD", "linear_r2", "pixel_r2", "psnr", "shd", "shd_within_frames"]
