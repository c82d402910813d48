"""Images without a white pixel."""

import torch

from tracefl.learning.examples import PIXELS, Examples


def images(labels, size=6):
    """Gray images without a white pixel, of the given labels."""
    labels = torch.as_tensor(labels)
    draw = torch.Generator().manual_seed(len(labels))
    pixels = torch.randint(0, 200, (len(labels), 3, size, size), dtype=torch.uint8, generator=draw)
    return Examples({PIXELS: pixels}, labels, torch.arange(len(labels)), (0.5,) * 3, (0.5,) * 3)
