"""Whether an image is like none of a run's: a model answers any image as one of its classes, whatever it shows."""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

FEWEST = 50
"""Images that are needed to say how far apart such images are, and how coloured."""

_SIDE = 16  # pixels of an image as it is compared
_COMPARED = 500  # images that are compared with one another, which costs the square of that
_AT_ONCE = 100  # images in float32
_MARGIN = 1.25  # a new image of the same kind may be somewhat farther off than any that are known
_COLOR = 8.0  # of 255: a scan of a grey image is coloured as much


def is_unlike(image: Tensor, others: Tensor) -> bool | None:
    """Return whether an image is farther from some others than these from their nearest ones, or more coloured.

    Images are compared pixel by pixel. One of the others is never unlike them.

    Args:
        image: ``(3, H, W)`` uint8.
        others: ``(N, 3, H, W)`` uint8.

    Returns:
        None for fewer than ``FEWEST`` others.
    """
    if len(others) < FEWEST:
        return None
    known = torch.cat([_small(part) for part in torch.split(others, _AT_ONCE)])  # (N, 3, 256)
    asked = _small(image[None])
    some = known[:: math.ceil(len(known) / _COMPARED)]
    farthest = _distances(some, some).fill_diagonal_(math.inf).amin(dim=1).amax()
    is_far = _distances(asked, known).amin() > _MARGIN * farthest + 1e-3  # and rounding
    return bool(is_far or _color(asked).amax() > _MARGIN * _color(known).amax() + _COLOR)


def _small(images: Tensor) -> Tensor:
    return adaptive_avg_pool2d(images.float(), _SIDE).flatten(2)  # (N, 3, 16 * 16)


def _distances(one: Tensor, other: Tensor) -> Tensor:
    # Not by a matrix product, which does not give 0 between equal images.
    return torch.cdist(one.flatten(1), other.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


def _color(images: Tensor) -> Tensor:
    return (images - images.mean(dim=1, keepdim=True)).abs().mean(dim=(1, 2))  # (N,), 0 where all is grey
