"""Whole runs of the smallest configuration, in this process or on Ray.

``end_to_end/test_simulation.py`` keeps the two equal, bit for bit: a run that does not test Ray itself needs none.
"""

from tests.helpers.configuration import TINY, compose_settings
from tests.helpers.in_process import InProcessGrid
from tracefl.experiment import runner
from tracefl.federation import client
from tracefl.federation.server import Federation

#: The smallest ResNet-18 that still has all of its kinds of layers.
SMALL_MODEL = ("++model.config.layers=[1,1,1,1]", "dataset.image_size=16")


def run(tmp_path, *overrides, app=client.app, stop_in=None):
    """Run a configuration in this process and return its folder.

    Args:
        tmp_path: The folder of the results.
        overrides: Beside ``TINY``.
        app: The clients' app.
        stop_in: Round in which the run stops, before any client has trained in it.
    """
    settings = run_settings_of(tmp_path, *overrides)
    run_in_process(settings, app, stop_in)
    return settings.folder


def run_in_process(settings, app=client.app, stop_in=None, command=None):
    """Run settings without Ray: takes the place of ``run_settings``."""
    runner.run_settings(settings, Federation(InProcessGrid(app, stop_in)), command=command)


def run_on_ray(tmp_path, *overrides):
    """Run a configuration on Ray and return its folder."""
    settings = run_settings_of(tmp_path, *overrides)
    runner.run_settings(settings)
    return settings.folder


def run_settings_of(tmp_path, *overrides):
    return compose_settings(*TINY, f"log_dir={tmp_path}", "run_name=run", *overrides)
