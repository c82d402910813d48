"""What a Ray worker imports when it starts: Ray starts the workers while the server still prepares its data."""

import gc

from tracefl.common.imports import heavy_imports

with heavy_imports():
    import torch

    import tracefl.federation.client  # noqa: F401

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what the first training step would, for seconds
gc.freeze()  # a worker that ends need not look at all of it again, for a second
