import time

import numpy as np
import pytest
import torch
from PIL import Image

from tracefl.errors import DataError
from tracefl.learning.datasets import images_to_tensor


def test_gray_images_fill_three_channels():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    tensor = images_to_tensor([image, Image.fromarray(image), image[:, :, None]], 4)
    assert tensor.shape == (3, 3, 4, 4)
    assert tensor.dtype == torch.uint8
    assert (tensor == torch.from_numpy(image)).all()


def test_channels_and_rows_keep_their_order():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[0, 1] = (10, 20, 30)  # row 0, column 1
    tensor = images_to_tensor([image], 2)
    assert tensor[0, :, 0, 1].tolist() == [10, 20, 30]
    assert tensor.sum() == 60


def test_resize_is_bilinear():
    # Enlarging (0, 200) to four pixels: bilinear weights 0, 1/4, 3/4, 1 of the right pixel.
    tensor = images_to_tensor([np.array([[0, 200], [0, 200]], dtype=np.uint8)], 4)
    assert tensor[0, 0, 0].tolist() == [0, 50, 150, 200]


def test_palette_and_transparency_become_rgb():
    image = Image.new("RGBA", (3, 5), (1, 2, 3, 0))
    for each in (image, np.asarray(image), image.convert("P"), image.convert("L")):
        assert images_to_tensor([each], 8).shape == (1, 3, 8, 8)


def test_no_images_give_an_empty_tensor():
    assert images_to_tensor([], 8).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4), dtype=np.int32),
        np.zeros(4, dtype=np.uint8),
        np.zeros((4, 4, 2), dtype=np.uint8),
        np.zeros((0, 4), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(DataError, match="image 1 of 2 is an array of"):
        images_to_tensor([np.zeros((4, 4), dtype=np.uint8), image], 4)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="image 0 of 1 is 0 x 3 pixels"):
        images_to_tensor([Image.new("L", (0, 3))], 4)


def test_ten_thousand_images_take_seconds():
    images = list(np.zeros((10_000, 28, 28), dtype=np.uint8))
    started = time.process_time()
    images_to_tensor(images, 32)
    assert time.process_time() - started < 5
