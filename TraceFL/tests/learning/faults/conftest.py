import pytest
import torch

from tracefl.learning.examples import Examples


@pytest.fixture
def texts():
    """Four texts of 3, 2, 1 and 4 tokens, padded with 0 on the right; labels 0 to 3."""
    ids = torch.tensor([[5, 6, 7, 0], [5, 6, 0, 0], [5, 0, 0, 0], [5, 6, 7, 8]], dtype=torch.int32)
    mask = (ids > 0).int()
    return Examples({"input_ids": ids, "attention_mask": mask}, torch.arange(4), torch.arange(4))
