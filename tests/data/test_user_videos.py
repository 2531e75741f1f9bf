"""The user's own videos: windows, what is held out, and backgrounds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from causalvae_fast.data import UserVideos, median_background

LENGTHS = (5, 3, 9, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos of several lengths; the first pixel of a frame is its number, and the second that of its video."""
    frames = np.random.default_rng(0).integers(0, 256, (sum(LENGTHS), 6, 8, 3), dtype=np.uint8)
    frame = 0
    for video, length in enumerate(LENGTHS):
        path = tmp_path / "videos" / f"video_{video}"
        path.mkdir(parents=True)
        for t in range(length):
            frames[frame, 0, 0] = frame
            frames[frame, 0, 1] = video
            Image.fromarray(frames[frame]).save(path / f"{t}.png")
            frame += 1
    return tmp_path / "videos"


def numbers(frames: torch.Tensor) -> list[int]:
    return frames[..., 0, 0, 0].flatten().tolist()


def test_windows_stay_within_videos_and_leave_the_held_out_one_alone(folder: Path) -> None:
    videos = UserVideos(folder, 3, held_out=0.25, seed=1)
    (apart,) = videos.held_out
    windows = videos.windows(torch.arange(len(videos)))
    assert windows.shape == (len(videos), 3, 6, 8, 3)
    assert len(videos) == sum(length - 2 for video, length in enumerate(LENGTHS) if video != apart.video)
    for window in windows:
        first = numbers(window)[0]
        assert numbers(window) == [first, first + 1, first + 2]
        (video,) = window[:, 0, 1, 0].unique().tolist()
        assert video != apart.video
    assert len({numbers(window)[0] for window in windows}) == len(videos)
    held_out, _ = videos.held_out_windows(100)
    assert set(held_out[:, :, 0, 1, 0].flatten().tolist()) == {apart.video}
    assert len(held_out) == LENGTHS[apart.video] - 2
    assert numbers(videos.clip(apart, 1, 2)) == [apart.first + 1, apart.first + 2]


@pytest.mark.parametrize(("held_out", "end"), [(0.3, 6), (0.01, 3), (0.99, 17)])
def test_of_a_single_video_the_end_is_held_out(tmp_path: Path, held_out: float, end: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (1, 20, 6, 8), dtype=np.uint8)
    array[0, :, 0, 0] = np.arange(20)
    np.save(tmp_path / "x.npy", array)
    videos = UserVideos(tmp_path / "x.npy", 3, held_out=held_out)
    assert (videos.segments[0].length, videos.held_out[0].length) == (20 - end, end)
    assert max(numbers(videos.windows(torch.arange(len(videos))))) == 19 - end
    assert numbers(videos.clip(videos.held_out[0])) == list(range(20 - end, 20))


def test_a_folder_of_frames_is_one_video(folder: Path) -> None:
    videos = UserVideos(folder / "video_2", 3)
    assert (videos.segments[0].length, videos.held_out[0].length) == (6, 3)


def test_backgrounds_are_the_medians(folder: Path) -> None:
    videos = UserVideos(folder, 3, background=True)
    assert videos.backgrounds is not None
    assert videos.backgrounds.shape == (4, 6, 8, 3)
    behind = videos.backgrounds_of(torch.arange(len(videos)))
    assert behind is not None
    windows = videos.windows(torch.arange(len(videos)))
    assert torch.equal(behind[:, 0, 1, 0], windows[:, 0, 0, 1, 0])
    every = UserVideos(folder / "video_2", 3, background=True)
    frames = torch.cat([every.clip(every.segments[0]), every.clip(every.held_out[0])])
    assert every.backgrounds is not None
    assert torch.equal(every.backgrounds[0], frames.median(0).values)
    assert torch.equal(median_background(frames), every.backgrounds[0])
    expected = ((frames.double() - frames.median(0).values) / 255).square().sum((1, 2, 3)).mean()
    assert every.variance == pytest.approx(expected.item(), rel=1e-5)


def test_what_does_not_move_is_told(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 8), dtype=np.uint8)
    array[2] = array[2, :1]
    np.save(tmp_path / "x.npy", array)
    assert "in 1 of 4 videos nothing moves" in UserVideos(tmp_path / "x.npy").survey.note


def test_a_short_folder_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"video_1 has 3 frames, but windows of 4 .*lower --frames"):
        UserVideos(folder, 4)
