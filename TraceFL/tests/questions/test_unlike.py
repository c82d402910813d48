"""Images of digits are like digits, each of the server's own above all; other images are not."""

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from tracefl.learning.datasets import images_to_tensor
from tracefl.questions.unlike import FEWEST, is_unlike

DIGITS = (torch.from_numpy(load_digits().images) * 255 / 16).round().to(torch.uint8)  # (1797, 8, 8)
PIXELS = DIGITS[:, None].expand(-1, 3, -1, -1)
SERVERS, NEW = PIXELS[::10], PIXELS[1::60]


def test_no_image_of_the_servers_own_is_unlike_them():
    assert not any(is_unlike(image, SERVERS) for image in SERVERS)


def test_one_of_many_is_not_either_where_only_some_are_compared_with_one_another():
    assert not any(is_unlike(image, PIXELS) for image in PIXELS[::200])


def test_copies_of_one_image_are_like_each_other():
    copies = PIXELS[:1].expand(FEWEST, -1, -1, -1)
    assert is_unlike(copies[0], copies) is False
    assert is_unlike(255 - copies[0], copies) is True


def test_other_digits_are_like_them():
    assert not any(is_unlike(image, SERVERS) for image in NEW)


@pytest.mark.parametrize("number", [0, 1])
def test_a_photograph_is_unlike_digits(number):
    photograph = Image.fromarray(load_sample_images().images[number])
    assert is_unlike(images_to_tensor([photograph], 8)[0], SERVERS) is True


@pytest.mark.parametrize(
    "image", [torch.full((3, 8, 8), 255, dtype=torch.uint8), 255 - SERVERS[0]], ids=["white", "inverted"]
)
def test_paper_with_ink_is_unlike_light_on_black(image):
    assert is_unlike(image, SERVERS) is True


def test_of_few_images_nothing_is_said():
    assert is_unlike(SERVERS[0], SERVERS[: FEWEST - 1]) is None
