"""Imports everything a run needs, once for all the processes forked from this one.

No thread may be running when they are forked: nothing here computes.
"""

import atexit
import gc
import os

from tracefl.common.imports import heavy_imports

with heavy_imports():
    import datasets  # noqa: F401
    import flwr_datasets.partitioner  # noqa: F401
    import medmnist  # noqa: F401
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401

    import tracefl.experiment.experiment
    import tracefl.experiment.preparation
    import tracefl.experiment.runner
    import tracefl.federation.ray_grid  # noqa: F401

    # Last, since it is in an extra: where it is not installed, what stands above has been imported.
    import transformers.models.bert.modeling_bert  # isort: skip
    import transformers.models.openai.modeling_openai  # isort: skip  # noqa: F401
gc.freeze()  # the forked processes share these pages until something touches each object
# The process that waits here, and forks, ends when its parent does. It has nothing to save, and the interpreter's own
# end would take seconds and complain of what the libraries left behind.
atexit.register(os._exit, 0)
