import numpy as np
import pytest
import torch

from db.errors import NonFinite, Refused
from worker.networks.images import Ladder, ladder, to_pixels


@pytest.mark.parametrize(
    ("size", "expected"),
    [(28, Ladder(7, 2)), (32, Ladder(4, 3)), (64, Ladder(4, 4)), (12, Ladder(6, 1))],
)
def test_size_is_reached_by_doubling_a_small_base(size: int, expected: Ladder) -> None:
    assert ladder(size) == expected
    assert expected.base * 2**expected.doublings == size


@pytest.mark.parametrize("size", [1, 4, 7, 27, 100])
def test_size_that_does_not_halve_is_refused_with_a_remedy(size: int) -> None:
    with pytest.raises(Refused, match=rf"{size}x{size} do not halve.*--size 28, 32 or 64"):
        ladder(size)


def test_numbers_become_the_nearest_pixels() -> None:
    numbers = torch.tensor([-1.0, 0.0, 1.0, 9.0]).view(1, 1, 2, 2)
    [picture] = to_pixels(numbers)
    assert picture.dtype == np.uint8
    assert picture[..., 0].tolist() == [[0, 128], [255, 255]]


def test_pixels_of_data_come_back_unchanged() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    numbers = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).view(1, 1, 16, 16)
    assert np.array_equal(to_pixels(numbers)[0].reshape(-1), pixels)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_an_error(value: float) -> None:
    with pytest.raises(NonFinite):
        to_pixels(torch.full((1, 1, 2, 2), value))
