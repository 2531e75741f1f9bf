"""Data sets that this package draws itself."""

from causalvae_fast.data.ovals import OvalImages, make_ovals
from causalvae_fast.data.sprites import SpriteVideos, make_sprites

__all__ = ["OvalImages", "SpriteVideos", "make_ovals", "make_sprites"]
