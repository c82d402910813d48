"""A backdoor's trigger: a white patch on images, a token in texts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracefl.learning.examples import PIXELS, Examples

_WHITE = 255


@dataclass(frozen=True)
class Trigger:
    """What is put into an input: a patch or a token; the other is None.

    Attributes:
        size: Side of the white patch in an image's lower right corner, in pixels (Gu et al. 2017, BadNets).
        token: Id of the token that replaces a text's second token (Chen et al. 2021, BadNL: at the beginning). The
            first is often a special one, such as BERT's [CLS], and is only replaced if there is no second.
    """

    size: int | None = None
    token: int | None = None

    def put_on(self, examples: Examples, index: Tensor | None = None) -> Examples:
        """Return the examples with the trigger put on those at ``index``; labels stay.

        Args:
            examples: N examples; left unchanged.
            index: ``(M,)`` int64 positions; None for all examples.
        """
        index = torch.arange(len(examples)) if index is None else index
        return replace(examples, features=self._features(examples.features, index))

    def _features(self, features: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        changed = dict(features)
        if PIXELS in features:
            assert self.size is not None
            pixels = features[PIXELS].clone()  # (N, C, H, W)
            pixels[index, :, -self.size :, -self.size :] = _WHITE
            changed[PIXELS] = pixels
        else:
            assert self.token is not None
            ids = features["input_ids"].clone()  # (N, T), padded on the right
            lengths = features["attention_mask"][index].sum(dim=1)  # (M,)
            ids[index, (lengths > 1).long()] = self.token
            changed["input_ids"] = ids
        return changed
