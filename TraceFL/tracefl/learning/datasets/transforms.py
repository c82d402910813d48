"""Converts images of any size and colour to one tensor of bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tracefl.errors import DataError
from tracefl.learning.datasets.images import as_rgb


def images_to_tensor(images: Sequence[Image.Image | NDArray[Any]], size: int) -> Tensor:
    """Convert images to red, green and blue and resize them with bilinear interpolation.

    Args:
        images: PIL images, or arrays ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of bool, uint8 or
            uint16; each is asked for once, in order.
        size: Height and width of the result, in pixels.

    Returns:
        ``(N, 3, size, size)`` uint8.

    Raises:
        DataError: An image is empty, or has pixels of another kind or shape.
    """
    pixels = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        try:
            rgb = as_rgb(image)
        except DataError as error:
            raise DataError(f"image {index} of {len(images)} {error}") from error
        pixels[index] = np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # (N, 3, size, size)
