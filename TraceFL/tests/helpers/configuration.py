"""Configurations as the command line composes them."""

from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from tracefl.experiment.settings import read_settings

REPOSITORY = Path(__file__).resolve().parents[3]

# The smallest run that still trains: 3 rounds on a few digits.
TINY = (
    "num_clients=5",
    "clients_per_round=3",
    "num_rounds=2",
    "client.epochs=1",
    "dirichlet_alpha=1.0",
    "dataset.max_examples_per_client=64",
    "dataset.max_server_examples=60",
)


def once(*overrides):
    """Return overrides each key once, with its last value: a command line takes no key twice."""
    return list({override.partition("=")[0]: override for override in overrides}.values())


def compose_config(*overrides):
    """Compose the configuration as the command line does."""
    GlobalHydra.instance().clear()
    with initialize_config_module("tracefl.conf", version_base="1.3"):
        return compose("base", list(overrides))


def compose_settings(*overrides):
    return read_settings(compose_config(*overrides))
