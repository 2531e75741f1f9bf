"""The ovals: how many, where, of what shape, and how they are held."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from causalvae_fast.data import OvalImages, make_ovals


@pytest.fixture(scope="module")
def ovals() -> OvalImages:
    return make_ovals()


@pytest.fixture(scope="module")
def some(ovals: OvalImages) -> tuple[Tensor, Tensor]:
    """Numbers of 600 images, and their pixels as 0 and 1."""
    index = torch.randperm(len(ovals), generator=torch.Generator().manual_seed(0))[:600]
    return index, ovals.images(index).double() / 255


def test_every_combination_is_there_once(ovals: OvalImages) -> None:
    assert len(ovals) == 6 * 40 * 32 * 10
    assert [len(ovals.factors[:, j].unique()) for j in (0, 2, 3)] == [32, 6, 40]
    assert len(ovals.factors.unique(dim=0)) == len(ovals)


def test_y_is_the_square_of_x_plus_noise_that_depends_on_nothing(ovals: OvalImages) -> None:
    x, y, scale, rotation = ovals.factors.double().T
    noise = y - x.square()
    assert noise.std().item() == pytest.approx(0.4, rel=0.1)
    assert x.std().item() == pytest.approx(1, rel=0.05)
    table = torch.corrcoef(torch.stack([x, noise, scale, rotation]))
    torch.testing.assert_close(table, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-5)


def test_no_oval_is_cut_off(ovals: OvalImages) -> None:
    """None touches the border of the image, which holds for the union of all of them."""
    union = torch.zeros(64, 64, dtype=torch.uint8)
    for chunk in torch.arange(len(ovals)).split(8192):
        union |= ovals.images(chunk).amax(0)
    assert union[0].sum() == union[-1].sum() == union[:, 0].sum() == union[:, -1].sum() == 0
    assert union.amax() == 255


def test_the_oval_is_where_its_factors_say(ovals: OvalImages, some: tuple[Tensor, Tensor]) -> None:
    """Centre of mass, area and direction of the long axis, from the pixels' moments."""
    index, images = some
    pixel = torch.arange(64, dtype=torch.float64) + 0.5
    area = images.sum((1, 2))
    column = (images.sum(1) * pixel).sum(1) / area
    row = (images.sum(2) * pixel).sum(1) / area
    torch.testing.assert_close(torch.stack([column, row], 1), ovals.centers[index].double(), rtol=0, atol=0.25)

    x, y, scale, rotation = ovals.factors[index].double().T
    torch.testing.assert_close(area, math.pi * 70 * scale.square(), rtol=0.03, atol=0)
    assert torch.corrcoef(torch.stack([x, column]))[0, 1] > 0.999  # to the right
    assert torch.corrcoef(torch.stack([y, row]))[0, 1] < -0.999  # upwards

    dx, dy = pixel - column.unsqueeze(1), row.unsqueeze(1) - pixel  # dy upwards
    xx = (images.sum(1) * dx.square()).sum(1)
    yy = (images.sum(2) * dy.square()).sum(1)
    xy = (images * dy.unsqueeze(2) * dx.unsqueeze(1)).sum((1, 2))
    difference = torch.atan2(2 * xy, xx - yy) / 2 - rotation
    assert (torch.sin(difference).abs() < 0.1).all()


def test_travel(ovals: OvalImages) -> None:
    span = ovals.centers.amax(0) - ovals.centers.amin(0)
    torch.testing.assert_close(span, torch.tensor([38.0, 23.0]))


def test_images_are_bytes_of_two_values(ovals: OvalImages, some: tuple[Tensor, Tensor]) -> None:
    images = ovals.images(some[0])
    assert images.dtype == torch.uint8
    assert images.unique().tolist() == [0, 255]
    assert ovals.bits.numel() == len(ovals) * 512  # eight pixels in a byte


def test_batches_equal_single_images(ovals: OvalImages) -> None:
    batch = ovals.__getitems__([7, 70_000])
    for key, value in ovals[70_000].items():
        assert torch.equal(batch[key][1], value)
    first = next(iter(DataLoader(ovals, batch_size=5, collate_fn=lambda batch: batch)))
    assert first["images"].shape == (5, 64, 64)
    assert torch.equal(first["factors"], ovals.factors[:5])


def test_the_same_images_every_time(ovals: OvalImages) -> None:
    assert torch.equal(make_ovals().bits, ovals.bits)
