"""Where the character is: found in pictures, and in view or not."""

import pytest
import torch

from causalvae_fast.data.character import load_character
from causalvae_fast.data.character_position import in_view, locate_character
from causalvae_fast.data.sprites import make_sprites, render


def test_the_character_is_found_where_it_was_drawn() -> None:
    videos = make_sprites(60, 3, seed=4)
    frames = videos.frames.flatten(0, 1).float() / 255
    background = videos.background.repeat_interleave(3, 0).float() / 255
    found = locate_character(frames, background, load_character())
    truth = videos.positions.flatten(0, 1)
    inside = in_view(truth)
    assert inside.float().mean() > 0.9
    torch.testing.assert_close(found[inside], truth[inside], rtol=0, atol=1 / 20)


def test_a_blurred_character_is_found_too() -> None:
    """As decoders draw it: the mean of four positions, half a pixel around the true one."""
    position = 3 + 13 * torch.rand(100, 2)
    background = make_sprites(100, seed=1).background.float() / 255
    character = load_character()
    shifts = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    blurred = torch.stack([render(character, background, position + shift) for shift in shifts]).mean(0)
    found = locate_character(blurred, background, character)
    torch.testing.assert_close(found, position, rtol=0, atol=0.3)
    assert (found - position).mean(0).abs().max() < 0.05


@pytest.mark.parametrize(
    ("position", "expected"), [((2.0, 17.0), True), ((1.9, 9.0), False), ((9.0, 17.1), False)]
)
def test_in_view_is_two_pixels_inside_the_frame(position: tuple[float, float], expected: bool) -> None:
    assert in_view(torch.tensor([position])).tolist() == [expected]
