"""Converts images of any size and colour to one tensor of bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tracefl.errors import DataError

WIDE_MODES = ("I", "F")
"""First letters of PIL's modes with more than 8 bits per channel."""


def images_to_tensor(images: Sequence[Image.Image | NDArray[Any]], size: int) -> Tensor:
    """Convert images to red, green and blue and resize them with bilinear interpolation.

    Args:
        images: PIL images, or uint8 arrays ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        size: Height and width of the result, in pixels.

    Returns:
        ``(N, 3, size, size)`` uint8.

    Raises:
        DataError: An image has more than 8 bits per channel, or an array has another dtype or shape.
    """
    pixels = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        pixels[index] = np.asarray(_to_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # (N, 3, size, size)


def _to_rgb(image: Image.Image | NDArray[Any]) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise DataError(
                f"image is an array of {image.dtype} {image.shape}, expected uint8 (H, W) or (H, W, 1, 3 or 4); "
                "convert the data set, or set dataset.input_columns to the column of images"
            )
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if image.mode.startswith(WIDE_MODES):
        raise DataError(
            f"image has PIL's mode {image.mode!r}, more than 8 bits a channel; convert the data set to 8-bit images"
        )
    return image.convert("RGB")
