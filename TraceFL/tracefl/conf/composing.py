"""Configurations composed as on the command line, without starting a run."""

from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tracefl.conf.cli import compose_base, explain_config_error, prepare_overrides
from tracefl.errors import ConfigError


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of one command's overrides; neither resolved nor checked.

    Raises:
        ConfigError: An override does not compose; one line.
    """
    try:
        return compose_base(prepare_overrides(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_config_error(error)) from error


def resolved_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose and resolve the configuration of one command's overrides; the values are not checked.

    Raises:
        ConfigError: An override does not compose, or a value cannot be resolved; one line.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(compose_config(overrides), resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(explain_config_error(error)) from error
    return config
