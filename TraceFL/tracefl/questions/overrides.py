"""A stored run's settings with some of them changed, as on the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tracefl.conf.cli import explain_config_error
from tracefl.conf.composing import compose_config
from tracefl.conf.constraints import read, read_value
from tracefl.errors import ConfigError
from tracefl.learning.privacy.settings import PrivacyTrace
from tracefl.questions.trace import Tracer
from tracefl.records.run import StoredRun
from tracefl.records.settings import BaselineSettings, ProvenanceSettings

GROUPS = ("provenance", "baselines")


def read_tracer(run: StoredRun, overrides: Sequence[str] = ()) -> Tracer:
    """Return the run's Tracer, with overrides applied.

    Args:
        run: The run.
        overrides: Overrides of the groups provenance and baselines, as on the command line.

    Raises:
        ConfigError: An override is illegal, or nothing is to be traced.
    """
    groups = _groups(run.settings.resolved, overrides)
    settings: ProvenanceSettings | None = read_value(ProvenanceSettings | None, groups["provenance"], "provenance")
    if settings is None:
        raise ConfigError("provenance.enabled=false traces nothing; give provenance=removal")
    baselines = read_baselines(run, overrides).rules
    return Tracer(settings, run.label_counts, run.fault, baselines, run.settings.seed, run.device)


def read_baselines(run: StoredRun, overrides: Sequence[str] = ()) -> BaselineSettings:
    """Return the run's settings of the group baselines, with overrides applied; arguments as of ``read_tracer``.

    Raises:
        ConfigError: An override is illegal.
    """
    found: BaselineSettings = read(
        BaselineSettings, _groups(run.settings.resolved, overrides)["baselines"], "baselines"
    )
    return found


def asks_before_noise(run: StoredRun, overrides: Sequence[str] = ()) -> bool:
    """Return whether to trace the average before the noise: the run's choice, unless an override says otherwise.

    Args:
        run: The run.
        overrides: Overrides of privacy.trace, as on the command line; others are ignored.

    Raises:
        ConfigError: privacy.trace is illegal.
    """
    asked = [o.partition("=")[2] for o in overrides if o.startswith("privacy.trace=")]
    if not asked:
        return run.settings.traces_before_noise
    return bool(read_value(PrivacyTrace, asked[-1], "privacy.trace") == "before_noise")


def _groups(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the groups provenance and baselines, as in the run or as newly chosen, with single keys changed."""
    asked = dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in GROUPS)
    keys = [o for o in overrides if o.startswith(tuple(f"{group}." for group in GROUPS))]
    try:
        cfg = (
            compose_config([f"{group}={choice}" for group, choice in asked.items()]) if asked else OmegaConf.create({})
        )
        for group in set(GROUPS) - set(asked):
            cfg[group] = OmegaConf.create(dict(config[group]))
        OmegaConf.set_struct(cfg, True)  # a key that does not exist is refused
        changed = OmegaConf.merge(cfg, OmegaConf.from_dotlist(keys))
        resolved = OmegaConf.to_container(changed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_config_error(error)) from error
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{' '.join(keys)} cannot be read: {said}; quote the value") from error
    assert isinstance(resolved, dict)
    return {group: resolved[group] for group in GROUPS}
