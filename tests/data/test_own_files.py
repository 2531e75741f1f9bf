"""The user's own files: what is read, in which order, and what is said of files that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from causalvae_fast.data import DataError, UserImages, UserVideos
from causalvae_fast.data.files import Kind, open_frames


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def write_images(folder: Path, images: np.ndarray, name: str = "frame_{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("shape", [(12, 6, 8), (12, 6, 8, 1), (12, 6, 8, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_images(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    array = noise(*shape)
    images = UserImages(saved(tmp_path / "x.npy", np.asarray(array, order=order)))  # type: ignore[call-overload]
    assert images.shape == (6, 8, shape[3] if len(shape) == 4 else 1)
    index = torch.tensor([7, 2, 2])
    read = images.images(index)
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read.numpy(), array[[7, 2, 2]].reshape(read.shape))


def test_floats_and_booleans(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 4, 4))
    read = UserImages(saved(tmp_path / "x.npy", array.astype(">f8"))).images(torch.arange(5))
    assert read.dtype == torch.float32
    np.testing.assert_allclose(read[..., 0], array, atol=1e-6)
    read = UserImages(saved(tmp_path / "b.npy", array > 0.5)).images(torch.arange(5))
    np.testing.assert_array_equal(read[..., 0], 255 * (array > 0.5))


def test_files_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    array = noise(12, 6, 8, 3)
    folder = write_images(tmp_path / "images", array)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._frame_1.png").write_text("what macOS leaves")
    images = UserImages(folder)
    np.testing.assert_array_equal(images.images(torch.arange(12)).numpy(), array)


def test_grey_among_rgb_is_rgb(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", noise(3, 6, 8))
    assert UserImages(folder).shape == (6, 8, 1)
    write_images(folder, noise(2, 6, 8, 3), "rgb_{}.png")
    assert UserImages(folder).shape == (6, 8, 3)


def test_opaque_alpha_is_dropped_and_transparency_is_refused(tmp_path: Path) -> None:
    array = np.concatenate([noise(4, 6, 8, 3), np.full((4, 6, 8, 1), 255, dtype=np.uint8)], -1)
    path, folder = saved(tmp_path / "x.npy", array), write_images(tmp_path / "images", array)
    for source in (path, folder):
        np.testing.assert_array_equal(UserImages(source).images(torch.arange(4)), array[..., :3])
    array[2, 1, 1, 3] = 0
    for source, name in ((saved(path, array), "x.npy[2]"), (write_images(folder, array), "frame_2.png")):
        with pytest.raises(DataError, match=r"transparent in places.*flatten") as caught:
            UserImages(source)
        assert name in str(caught.value)


def test_decoded_again_where_they_are_too_many_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise(6, 5, 7)
    folder = write_images(tmp_path / "images", array)
    held = UserImages(folder)
    monkeypatch.setattr("causalvae_fast.data.files._HELD_BYTES", 0)
    again = UserImages(folder)
    assert again.survey == held.survey
    np.testing.assert_array_equal(again.images(torch.tensor([4]))[0, ..., 0], array[4])


def broken(array: np.ndarray, change: Callable[[np.ndarray], None]) -> np.ndarray:
    array = array.copy()
    change(array)
    return array


def put(*place: int, value: float) -> Callable[[np.ndarray], None]:
    return lambda array: array.__setitem__(place, value)


FLOATS = np.random.default_rng(0).random((6, 4, 5)).astype(np.float32)
BAD_ARRAYS: dict[str, tuple[Kind, np.ndarray, str]] = {
    "nan": ("images", broken(FLOATS, put(3, 1, 1, value=np.nan)), r"x.npy\[3\] holds NaN: mend or remove"),
    "inf": ("images", broken(FLOATS, put(3, 1, 1, value=np.inf)), r"x.npy\[3\] holds infinite values"),
    "from -1 to 1": ("images", 2 * FLOATS - 1, r"x.npy\[0\] holds floats from -.*\[0, 1\]: save \(x \+ 1\) / 2"),
    "bytes as floats": ("images", 255 * FLOATS, r"save x.astype\('uint8'\)"),
    "standardised": ("images", 9 * FLOATS - 4, r"save \(x - x.min"),
    "0 and 1 as bytes": ("images", noise(6, 4, 5) // 128, r"hold 0 and 1 as uint8: save 255 \* x"),
    "constant": ("images", np.repeat(noise(1, 4, 5), 6, 0), r"x.npy\[0\] and all others are the same image"),
    "one sample": ("images", noise(1, 4, 5), "x.npy holds one image"),
    "integers": ("images", noise(6, 4, 5).astype(np.int64), r"x.npy holds int64: save uint8"),
    "one image": ("images", noise(4, 5), r"must have shape \(N, H, W\) or .* but has \(4, 5\)"),
    "a video": ("images", noise(3, 6, 4, 5), "train video, if the second dimension is time"),
    "colours first": ("images", noise(6, 3, 8, 9), r"put colours last, numpy.moveaxis\(x, 1, -1\)"),
    "tiny": ("images", noise(6, 4, 3), "has 3 x 4 pixels .*at least 4 a side"),
    "empty": ("images", noise(0, 4, 5), "x.npy is empty"),
    "images": ("video", noise(6, 4, 5), "add or remove dimensions, or use train images"),
    "one frame": ("video", noise(6, 1, 4, 5), r"x.npy\[0\] has one frame, but windows of 3.*use train images"),
    "two frames": ("video", noise(6, 2, 4, 5), r"x.npy\[0\] has 2 frames.*lower --frames"),
    "one short video": ("video", noise(1, 5, 4, 5), "is the only video and has 5 frames.*at least 6 frames"),
    "still": ("video", np.repeat(noise(6, 1, 4, 5), 4, 1), r"x.npy\[0\] and all other videos are still"),
    "nan in a video": (
        "video",
        broken(FLOATS.reshape(1, 6, 4, 5), put(0, 3, 1, 1, value=np.nan)),
        r"x.npy\[0, 3\] holds NaN",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named_with_a_remedy(tmp_path: Path, case: str) -> None:
    kind, array, message = BAD_ARRAYS[case]
    path = saved(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        UserImages(path) if kind == "images" else UserVideos(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all"])
def test_files_that_are_no_arrays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.npy is not a whole NumPy file .*numpy.save"):
        UserImages(path)


def test_truncated_pickled_and_several_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", noise(6, 4, 5))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a whole NumPy file"):
        UserImages(path)
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a whole NumPy file"):
        UserImages(path)
    np.savez(tmp_path / "x.npz", a=noise(6, 4, 5))
    with pytest.raises(DataError, match=r"x.npz holds several arrays.*numpy.save"):
        UserImages(tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError, match=r"no data at .*none.npy: give a .npy file or a folder"):
        UserImages(tmp_path / "none.npy")


def spoil_size(folder: Path) -> None:
    Image.fromarray(noise(6, 9)).save(folder / "frame_3.png")


def truncate(folder: Path) -> None:
    path = folder / "frame_3.png"
    path.write_bytes(path.read_bytes()[:60])


def no_image(folder: Path) -> None:
    (folder / "frame_3.png").write_text("hello")


def deep(folder: Path) -> None:
    Image.fromarray(noise(6, 8).astype(np.uint16) * 100).save(folder / "frame_3.png")


def moving(folder: Path) -> None:
    frames = [Image.fromarray(image) for image in noise(3, 6, 8)]
    frames[0].save(folder / "frame_3.gif", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, r"frame_3.png has 9 x 6 pixels .*frame_0.png has 8 x 6: resize or crop"),
        (truncate, r"frame_3.png is not a readable image .*mend it, or remove it"),
        (no_image, r"frame_3.png is not a readable image"),
        (deep, r"frame_3.png has pixels of mode I;16, .*convert the images to 8 bits"),
        (moving, r"frame_3.gif holds several images: write each of them to a file"),
    ],
)
def test_bad_image_files_are_named_with_a_remedy(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = write_images(tmp_path / "images", noise(6, 6, 8))
    spoil(folder)
    with pytest.raises(DataError, match=message):
        UserImages(folder)


def test_folders_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images: put files in it"):
        open_frames(tmp_path / "empty", "images")
    write_images(tmp_path / "videos" / "a", noise(6, 6, 8))
    with pytest.raises(DataError, match=r"videos holds folders of images, as a: .*train video"):
        open_frames(tmp_path / "videos", "images")
    write_images(tmp_path / "videos", noise(2, 6, 8))
    with pytest.raises(DataError, match=r"holds images, as frame_0.png, beside folders"):
        open_frames(tmp_path / "videos", "video")


def test_images_of_a_single_colour_are_told_but_taken(tmp_path: Path) -> None:
    array = noise(6, 4, 5)
    assert UserImages(saved(tmp_path / "x.npy", array)).survey.note == ""
    array[4] = 7
    note = UserImages(saved(tmp_path / "x.npy", array)).survey.note
    assert "1 of 6 frames is of a single colour" in note
    assert "x.npy[4]" in note


def test_the_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise(50, 4, 5, 3)
    found = UserImages(saved(tmp_path / "x.npy", array)).survey
    assert found.variance == pytest.approx((array / 255).var(axis=0).sum())
    monkeypatch.setattr("causalvae_fast.data.survey._CHUNK_BYTES", 100)
    chunked = UserImages(tmp_path / "x.npy").survey
    assert chunked.fingerprint == found.fingerprint
    assert chunked.variance == pytest.approx(found.variance)
    array[30, 2, 2, 1] ^= 1
    assert UserImages(saved(tmp_path / "x.npy", array)).survey.fingerprint != found.fingerprint


def test_held_out_images_are_others_than_those_of_the_training(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", noise(50, 4, 5))
    images = UserImages(path, held_out=0.2)
    assert len(images.held_out) == 10
    assert sorted([*images.held_out.tolist(), *images.train.tolist()]) == list(range(50))
    assert torch.equal(UserImages(path, held_out=0.2).held_out, images.held_out)
    assert not torch.equal(UserImages(path, held_out=0.2, seed=1).held_out, images.held_out)
    assert len(UserImages(path, held_out=0.001).held_out) == 1
