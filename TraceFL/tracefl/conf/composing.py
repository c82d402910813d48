"""Configurations outside of a run: composed as its command line would, without running it."""

from collections.abc import Iterable, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tracefl.conf.cli import explain_config_error, prepare_overrides
from tracefl.errors import ConfigError


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of one command's overrides; neither resolved nor checked.

    Raises:
        ConfigError: An override does not compose; one line.
    """
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module("tracefl.conf", version_base="1.3"):
            return compose("base", prepare_overrides(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_config_error(error)) from error


def compose_configs(commands: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """Compose and resolve the configuration of each command's overrides; the values are not checked.

    Raises:
        ConfigError: An override does not compose; one line.
    """
    configs: list[dict[str, Any]] = []
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module("tracefl.conf", version_base="1.3"):
            for overrides in commands:
                composed = compose("base", prepare_overrides(overrides))
                configs.append(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_config_error(error)) from error
    return configs
