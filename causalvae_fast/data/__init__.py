"""Data sets that this package draws itself."""

from causalvae_fast.data.sprites import SpriteVideos, make_sprites

__all__ = ["SpriteVideos", "make_sprites"]
