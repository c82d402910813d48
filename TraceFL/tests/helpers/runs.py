"""Whole runs of the smallest configuration, in this process or on Ray.

``end_to_end/test_simulation.py`` keeps the two equal, bit for bit: a run that does not test Ray itself needs none.
"""

import dataclasses

from tests.helpers.configuration import TINY, compose_settings
from tracefl.errors import RunStopped
from tracefl.experiment import runner
from tracefl.federation import client
from tracefl.federation.in_process import federation_here

#: The smallest ResNet-18 that still has all of its kinds of layers.
SMALL_MODEL = ("++model.config.layers=[1,1,1,1]", "dataset.image_size=16")

#: A DenseNet of 30 thousand parameters, as of ``tracefl demo``: for runs that are to learn something, in half the time.
LIGHT_MODEL = (
    *("model=densenet121", "dataset.image_size=32", "client.lr=0.006"),
    *("++model.config.block_config=[1,1,1,1]", "++model.config.growth_rate=12", "++model.config.num_init_features=24"),
)

#: A DenseNet of 4 thousand parameters, where a round takes a quarter of the time, but learns too little to be right:
#: all predictions are traced. For runs that are only compared with each other.
TINY_MODEL = (
    *("model=densenet121", "dataset.image_size=32", "provenance.inputs=all"),
    *("++model.config.block_config=[1,1,1,1]", "++model.config.growth_rate=4", "++model.config.num_init_features=8"),
)


def run(tmp_path, *overrides, app=client.app, stop_in=None):
    """Run a configuration in this process and return its folder.

    Args:
        tmp_path: The folder of the results.
        overrides: Beside ``TINY``.
        app: The clients' app.
        stop_in: Round in which the run stops, before any client has trained in it.
    """
    settings = run_settings_of(tmp_path, *overrides, "backend=in_process")
    federation = None if app is client.app and stop_in is None else _Stopping(federation_here(app), stop_in)
    runner.run_settings(settings, federation)
    return settings.folder


class _Stopping:
    """A federation that stops when a round begins."""

    def __init__(self, federation, stop_in):
        self._federation, self._stop_in = federation, stop_in

    def run(self, plan, hooks):
        def on_sampled(server_round, clients):
            hooks.on_sampled(server_round, clients)
            if server_round == self._stop_in:
                raise RunStopped(f"stopped by a test in round {self._stop_in}")

        self._federation.run(plan, dataclasses.replace(hooks, on_sampled=on_sampled))


def run_on_ray(tmp_path, *overrides):
    """Run a configuration on Ray and return its folder."""
    settings = run_settings_of(tmp_path, *overrides, "backend=ray")
    runner.run_settings(settings)
    return settings.folder


def run_settings_of(tmp_path, *overrides):
    return compose_settings(*TINY, f"log_dir={tmp_path}", "run_name=run", *overrides)
