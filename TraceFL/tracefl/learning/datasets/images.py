"""Image files as a person sees them: upright, and in red, green and blue of 8 bits.

A run's data and an image that is asked about later are both read here, so the same file gives the same pixels in both.
"""

import io
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tracefl.errors import DataError, one_line

_WIDE = "I"  # first letter of PIL's modes of whole numbers of more than 8 bits
_HIGHEST_WIDE = 65535
_CHANNELS = (1, 3, 4)

_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
)
"""What Pillow raises on damaged files, by trying thousands of them."""


def decode_image(encoded: bytes) -> Image.Image:
    """Decode an image file.

    It is turned upright as its EXIF orientation says. Of an animation the first frame is taken; transparency is
    dropped, which leaves the colours beneath; of 16 bits a channel the upper 8 are kept.

    Args:
        encoded: The content of a file of any format that Pillow reads.

    Returns:
        An image of PIL's mode RGB.

    Raises:
        DataError: The file is empty, damaged, no image, or larger than Pillow decodes; or its values are not from 0 to
            65535 or not whole, so that white is not known. The message says what and what to do, not which file.
    """
    if not encoded:
        raise DataError("is an empty file; give an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged metadata, and on files that Pillow finds large but decodes
            image = Image.open(io.BytesIO(encoded))
            image.load()  # before the orientation is looked at: TIFF files are turned by loading them
            return as_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        size = str(error).partition(", could")[0]  # and the limit; what follows accuses the file's author
        raise DataError(f"is too large ({size}); make it smaller") from error
    except UnidentifiedImageError as error:
        raise DataError("is no image that can be read; give a PNG or JPEG file") from error
    except _DAMAGED as error:
        raise DataError(f"is damaged and cannot be decoded ({one_line(error)}); give the whole file") from error


def as_rgb(image: Image.Image | NDArray[Any]) -> Image.Image:
    """Convert an image to red, green and blue of 8 bits, as ``decode_image`` does.

    Args:
        image: PIL image; or array ``(H, W)`` or ``(H, W, C)`` of 1, 3 or 4 channels, of bool, uint8 or uint16.

    Raises:
        DataError: The image is empty, or its pixels are no such values.
    """
    if not isinstance(image, Image.Image):
        return _array_as_rgb(np.asarray(image))
    if 0 in image.size:
        raise DataError(f"is {image.width} x {image.height} pixels; give an image that has some")
    if image.mode.startswith(_WIDE):
        return _array_as_rgb(_eight_bits(np.asarray(image)))
    if image.mode == "F":
        raise DataError("has floating-point pixels (PIL's mode F), whose white is not known; convert it to 8 bits")
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _array_as_rgb(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype == np.uint16:
        pixels = _eight_bits(pixels)
    elif pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)
    if pixels.dtype != np.uint8 or not is_image or 0 in pixels.shape:
        raise DataError(
            f"is an array of {pixels.dtype} {pixels.shape}, expected bool, uint8 or uint16 (H, W) or "
            "(H, W, 1, 3 or 4); convert the data set, or set dataset.input_columns to the column of images"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).convert("RGB")


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the upper 8 of 16 bits, which is what Pillow keeps of colour images."""
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > _HIGHEST_WIDE:
        raise DataError(f"has pixels from {low} to {high}, expected 0 to {_HIGHEST_WIDE}; convert it to 8 bits")
    return (pixels.astype(np.int64) >> 8).astype(np.uint8)
