"""Imports that Ray workers make when they start, while the server still prepares its data."""

import gc

from tracefl.common.imports import heavy_imports

with heavy_imports():
    import torch

    import tracefl.federation.client  # noqa: F401

    torch.optim.Adam(
        [torch.zeros(1, requires_grad=True)]
    )  # triggers the imports of the first training step, which take seconds
gc.freeze()  # saves a worker's last garbage collection when it ends, about a second
