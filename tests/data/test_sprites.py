"""The sprite videos: motion, rendering, seeds, and the user's own images."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from causalvae_fast.data import make_sprites
from causalvae_fast.data.sprites import render


def checkerboard(path: Path, size: tuple[int, int] = (50, 40)) -> Path:
    Image.effect_noise(size, 80).convert("RGB").save(path)
    return path


def test_shapes_types_and_first_positions() -> None:
    videos = make_sprites(50, 4, seed=1)
    assert videos.frames.shape == (50, 4, 20, 20, 3)
    assert videos.background.shape == (50, 20, 20, 3)
    assert videos.frames.dtype == videos.background.dtype == torch.uint8
    first = videos.positions[:, :2]
    assert first.min() >= 7
    assert first.max() <= 12
    assert first.std() > 1  # of a uniform distribution over 5 pixels: 1.44


def test_motion_is_linear_in_every_later_frame() -> None:
    x = make_sprites(50, 6).positions
    torch.testing.assert_close(x[:, 2:], 2 * x[:, 1:-1] - x[:, :-2], rtol=0, atol=1e-4)


def test_the_character_is_where_the_positions_say() -> None:
    """The centre of what differs from the background, weighted by the sprite's own alpha, is the position."""
    sprite = torch.zeros(5, 5, 4)
    sprite[1:4, 1:4] = 1  # a white square over black
    position = torch.tensor([[9.0, 9.0], [7.25, 11.5], [10.9, 8.1]])
    image = render(sprite, torch.zeros(3, 20, 20, 3), position)[..., 0]
    pixels = torch.arange(20.0)
    mass = image.sum((1, 2))
    centre = torch.stack([(image.sum(1) * pixels).sum(1), (image.sum(2) * pixels).sum(1)], dim=1) / mass[:, None]
    torch.testing.assert_close(centre, position, rtol=0, atol=1e-4)
    torch.testing.assert_close(mass, torch.full((3,), 9.0))


def test_blending_keeps_the_background_where_the_sprite_is_transparent() -> None:
    sprite = torch.ones(3, 3, 4)
    sprite[..., 3] = 0.25
    image = render(sprite, torch.full((1, 20, 20, 3), 0.2), torch.tensor([[10.0, 10.0]]))
    assert image[0, 10, 10].tolist() == pytest.approx([0.4] * 3)  # 0.25 * 1 + 0.75 * 0.2
    assert image[0, 0, 0].tolist() == pytest.approx([0.2] * 3)


def test_a_sprite_outside_the_frame_leaves_the_background() -> None:
    image = render(torch.ones(3, 3, 4), torch.zeros(2, 20, 20, 3), torch.tensor([[-5.0, 10.0], [0.0, 10.0]]))
    assert image[0].count_nonzero() == 0
    assert image[1, :, :, 0].count_nonzero() == 6  # two of its three columns


def test_the_seed_decides() -> None:
    one, same, other = (make_sprites(20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.frames, same.frames)
    assert torch.equal(one.positions, same.positions)
    assert not torch.equal(one.frames, other.frames)


def test_more_frames_continue_the_same_videos() -> None:
    short, long = make_sprites(10, 3, seed=5), make_sprites(10, 6, seed=5)
    assert torch.equal(short.frames, long.frames[:, :3])


def test_backgrounds_are_varied() -> None:
    """Between two samples the backgrounds differ, and within one they are not flat."""
    background = make_sprites(60).background.float()
    assert (background.flatten(1)[:-1] - background.flatten(1)[1:]).abs().mean(1).min() > 5
    assert background.std((1, 2)).mean(1).median() > 10


def test_batches_equal_single_samples() -> None:
    videos = make_sprites(8)
    batch = videos.__getitems__([2, 5])
    for key, value in videos[5].items():
        assert torch.equal(batch[key][1], value)
    assert len(videos) == 8


def test_own_sprite_and_backgrounds(tmp_path: Path) -> None:
    sprite = tmp_path / "red.png"
    Image.new("RGBA", (40, 20), (255, 0, 0, 255)).save(sprite)
    (tmp_path / "places").mkdir()
    Image.new("RGB", (70, 40), (0, 0, 255)).save(tmp_path / "places" / "blue.png")
    videos = make_sprites(6, sprite=sprite, backgrounds=tmp_path / "places")
    assert bool((videos.background == torch.tensor([0, 0, 255], dtype=torch.uint8)).all())
    red = (videos.frames[:, 0] == torch.tensor([255, 0, 0], dtype=torch.uint8)).all(-1)
    rows, columns = red.any(2).sum(1), red.any(1).sum(1)
    assert bool((columns > rows).all())  # twice as wide as high, as the file is


def test_crops_come_from_every_image(tmp_path: Path) -> None:
    for name, color in (("a.png", (255, 0, 0)), ("b.jpg", (0, 255, 0))):
        Image.new("RGB", (30, 30), color).save(tmp_path / name)
    brightest = make_sprites(40, backgrounds=tmp_path).background[:, 0, 0].argmax(1)
    assert set(brightest.tolist()) == {0, 1}


def test_crops_of_one_image_differ(tmp_path: Path) -> None:
    checkerboard(tmp_path / "noise.png")
    background = make_sprites(10, backgrounds=tmp_path).background
    assert len({tuple(image.flatten().tolist()) for image in background}) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"n": 0}, "n must be at least 1, got 0"), ({"n": 2, "frames": 1}, "frames must be at least 2, got 1")],
)
def test_sizes_that_cannot_be(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sprites(**arguments)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nobody\.png.*give the path"):
        make_sprites(2, sprite=tmp_path / "nobody.png")
    with pytest.raises(FileNotFoundError, match=r"nowhere.*give a directory"):
        make_sprites(2, backgrounds=tmp_path / "nowhere")


def test_empty_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"{tmp_path.name} holds no images"):
        make_sprites(2, backgrounds=tmp_path)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    checkerboard(broken)
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        make_sprites(2, sprite=broken)
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        make_sprites(2, backgrounds=tmp_path)


def test_invisible_sprite_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(tmp_path / "ghost.png")
    with pytest.raises(ValueError, match=r"ghost\.png is transparent everywhere"):
        make_sprites(2, sprite=tmp_path / "ghost.png")
