"""Data sets that this package draws itself, and the user's own."""

from causalvae_fast.data.files import DataError
from causalvae_fast.data.ovals import OvalImages, make_ovals
from causalvae_fast.data.sprites import SpriteVideos, make_sprites
from causalvae_fast.data.user_images import UserImages
from causalvae_fast.data.user_videos import UserVideos, median_background

__all__ = [
    "DataError",
    "OvalImages",
    "SpriteVideos",
    "UserImages",
    "UserVideos",
    "make_ovals",
    "make_sprites",
    "median_background",
]
