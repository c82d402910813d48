"""The pixels that each output pixel of a convolution sees: im2col, in any number of dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A kernel along one dimension: its taps, steps, and the zeros before and after the tensor."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int

    def without_padding(self) -> "Window":
        """Return the same window over a tensor that is padded already."""
        return Window(self.taps, self.stride, self.dilation, 0, 0)

    def positions(self, size: int) -> int:
        """Return how many positions the kernel takes along ``size`` pixels."""
        return (size + self.before + self.after - self.dilation * (self.taps - 1) - 1) // self.stride + 1

    def used(self, size: int) -> slice:
        """Return the taps, first to last, that ever meet a pixel; the others meet zeros alone.

        For a kernel of 3 on an image of one pixel, only the middle one: a ninth of the weights in two dimensions.
        """
        places = range(self.positions(size))
        meets = [
            tap
            for tap in range(self.taps)
            if any(0 <= place * self.stride + tap * self.dilation - self.before < size for place in places)
        ]
        return slice(meets[0], meets[-1] + 1) if meets else slice(0, 1)


def windows(tensor: Tensor, window: Sequence[Window], groups: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Return what each position of the kernel sees.

    Args:
        tensor: ``(B, channels, *pixels)``.
        window: The kernel, one entry per dimension of ``pixels``.
        groups: Number of groups of channels, which are kept apart.

    Returns:
        ``(B, G, S, channels / G * taps)``, for S positions, the last dimension holding the taps of one channel after
        another; and the taps included.
    """
    sizes = tensor.shape[2:]
    used = tuple(w.used(n) for w, n in zip(window, sizes, strict=True))
    if any(u.stop - u.start > 1 for u in used):  # picking several taps out of each kernel is slower than taking all
        used = tuple(slice(0, w.taps) for w in window)
    places = tuple(w.positions(n) for w, n in zip(window, sizes, strict=True))
    if any(w.before or w.after for w in window):
        tensor = F.pad(tensor, [edge for w in reversed(window) for edge in (w.before, w.after)])
    tensor = tensor.contiguous()
    steps = tensor.stride()[2:]
    view = tensor.as_strided(
        (len(tensor), groups, tensor.shape[1] // groups, *(u.stop - u.start for u in used), *places),
        (
            tensor.stride(0),
            tensor.stride(1) * (tensor.shape[1] // groups),
            tensor.stride(1),
            *(w.dilation * step for w, step in zip(window, steps, strict=True)),
            *(w.stride * step for w, step in zip(window, steps, strict=True)),
        ),
        tensor.storage_offset() + sum(u.start * w.dilation * s for u, w, s in zip(used, window, steps, strict=True)),
    )
    count = 1
    for place in places:
        count *= place
    # Rows of pixels are contiguous in memory: they stay innermost, and the transposition costs nothing.
    columns = view.reshape(len(tensor), groups, -1, count)
    return columns.transpose(2, 3), used
