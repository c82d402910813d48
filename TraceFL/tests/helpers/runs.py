"""Whole runs through Flower and Ray."""

from tests.helpers.configuration import TINY, compose_settings
from tracefl.experiment.runner import run_settings


def run(tmp_path, *overrides):
    """Run a configuration and return its folder."""
    settings = compose_settings(*TINY, f"log_dir={tmp_path}", "run_name=run", *overrides)
    run_settings(settings)
    return tmp_path / settings.exp_key / "run"
