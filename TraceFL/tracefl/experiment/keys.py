"""What the keys of a configuration say of one another, checked before torch is imported: it takes seconds."""

from tracefl.errors import ConfigError
from tracefl.experiment.mitigation.settings import check_mitigation
from tracefl.federation.participation import check_without
from tracefl.learning.faults.settings import Backdoor
from tracefl.learning.privacy.settings import AdaptivePrivacySettings, DpSgdSettings
from tracefl.records.settings import NO_MISPREDICTIONS, Settings


def check_keys(settings: Settings) -> None:
    """Check settings whose values are each legal by themselves.

    Raises:
        ConfigError: Two conflict with one another; one line, with the key.
    """
    if settings.overwrite and settings.resume:
        raise ConfigError("overwrite=true begins again and resume=true goes on; give one of them")
    if settings.clients_per_round > settings.num_clients:
        raise ConfigError(
            f"clients_per_round={settings.clients_per_round} is above num_clients={settings.num_clients}; lower it"
        )
    if settings.strategy.min_clients > settings.clients_per_round:
        raise ConfigError(
            f"strategy.min_clients={settings.strategy.min_clients} is above "
            f"clients_per_round={settings.clients_per_round}; lower it"
        )
    _check_strategy(settings)
    check_without(settings)
    model, dataset = settings.model, settings.dataset
    if model.kind != dataset.kind:
        raise ConfigError(
            f"model={model.name} takes {model.kind}s and dataset={dataset.name} holds {dataset.kind}s; "
            f"choose a data set of {model.kind}s or another model"
        )
    if settings.device != "cuda":
        _check_precision(settings)
    check_mitigation(settings)
    _check_privacy(settings)
    if settings.baselines.rules and not _traces_mispredictions(settings):
        raise ConfigError(f"baselines.rules={list(settings.baselines.rules)} {NO_MISPREDICTIONS}")
    if settings.fault is not None:
        settings.fault.check_run(settings.num_clients, settings.num_rounds)
    if isinstance(settings.fault, Backdoor):
        settings.fault.check_data(dataset.kind, dataset.image_size)
    if settings.backend == "in_process":
        _check_in_process(settings)


def _check_precision(settings: Settings) -> None:
    if settings.client.precision == "bf16":
        raise ConfigError(f"client.precision=bf16 needs device=cuda, got device={settings.device}")
    if settings.provenance is not None and settings.provenance.precision == "bf16":
        raise ConfigError(f"provenance.precision=bf16 needs device=cuda, got device={settings.device}")


def _check_strategy(settings: Settings) -> None:
    """Check what a robust rule in place of the average goes together with."""
    strategy, rule = settings.strategy, f"strategy={settings.strategy.name}"
    if strategy.fewest_clients > settings.clients_per_round:
        raise ConfigError(
            f"{rule} needs clients_per_round of at least {strategy.fewest_clients}, to aggregate all clients and all "
            f"but one; got {settings.clients_per_round}"
        )
    if strategy.fewest_clients == 1:
        return
    if settings.privacy is not None and not isinstance(settings.privacy, DpSgdSettings):
        raise ConfigError(f"{rule} and privacy={settings.privacy.name} each aggregate the updates; give one of them")
    if settings.provenance is not None and not settings.provenance.method.estimates_removal:
        raise ConfigError(
            f"{rule} makes no average whose parts a preset could split among the clients; give provenance=leave_one_out"
        )
    if strategy.name in ("krum", "bulyan") and settings.store.dtype != "float32":
        raise ConfigError(
            f"{rule} may choose other clients of weights that were rounded; store.dtype={settings.store.dtype} rounds "
            "them: give store.dtype=float32"
        )
    if settings.mitigate is not None:
        raise ConfigError(f"{rule} has no weights that mitigate={settings.mitigate.name} could lower; give one of them")
    if settings.baselines.rules:
        raise ConfigError(
            f"baselines.rules={list(settings.baselines.rules)} compare rules on averages; leave {rule} out"
        )


def _check_privacy(settings: Settings) -> None:
    if isinstance(settings.privacy, AdaptivePrivacySettings):
        settings.privacy.check_round(settings.clients_per_round)
    if isinstance(settings.privacy, DpSgdSettings) and settings.client.precision != "float32":
        raise ConfigError(f"privacy=dp_sgd needs client.precision=float32, got {settings.client.precision}")


def _traces_mispredictions(settings: Settings) -> bool:
    if settings.provenance is None:
        return False
    by_default = "correct" if settings.fault is None else "mispredicted"
    return (settings.provenance.inputs or by_default) == "mispredicted"


def _check_in_process(settings: Settings) -> None:
    for key, value in (("ray.address", settings.ray.address), ("strategy.isolate", settings.strategy.isolate or None)):
        if value is not None:
            raise ConfigError(
                f"backend=in_process and {key}={str(value).lower()}, which needs Ray; give one of them, or backend=ray"
            )
